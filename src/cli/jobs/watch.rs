//! Follows a job by its stream of events; a cut stream is taken up again where it broke.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::client::{Client, Error};
use super::{exit_code, show, text};

/// Pause before a cut stream is opened again.
const PAUSE: Duration = Duration::from_millis(500);
/// Streams that may fail in a row before the watch gives up.
const CUTS: u32 = 20;
/// Longest event taken, in bytes.
const LONGEST_EVENT: usize = 4 * 1024 * 1024;
/// Longest silence: the server says something at least every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);

/// One event of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    event: Event,
}

impl Parser {
    /// Takes bytes in, gives whole events out; nothing when an event grows beyond all bounds.
    fn feed(&mut self, bytes: &[u8]) -> Option<Vec<Event>> {
        let mut whole = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                whole.extend(self.line(String::from_utf8_lossy(&line).trim_end_matches('\r')));
            } else {
                self.line.push(*byte);
            }
        }
        (self.line.len() + self.event.data.len() <= LONGEST_EVENT).then_some(whole)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (event != Event::default()).then_some(event);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event.name),
            "data" => self.event.data.push_str(value),
            _ => {}
        }
        None
    }
}

struct Watch<'a> {
    client: &'a Client,
    path: String,
    as_json: bool,
    last: Option<String>,
    seen: HashSet<String>,
    state: String,
    /// What was said last of how far it is.
    far: String,
}

/// Shows a job's timeline until it has ended, and says what the process ends with.
pub(super) async fn run(
    client: &Client,
    id: i64,
    timeout: Option<Duration>,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, Error> {
    let mut watch = Watch {
        client,
        path: format!("/api/v1/jobs/{id}/events"),
        as_json,
        last: None,
        seen: HashSet::new(),
        state: "open".to_owned(),
        far: String::new(),
    };
    let Some(limit) = timeout else { return watch.follow(out).await };
    let until = Instant::now() + limit;
    match tokio::time::timeout_at(until, watch.follow(out)).await {
        Ok(end) => end,
        Err(_) => Err(Error::TimeOut {
            id: id.to_string(),
            state: watch.state,
            limit: format!("{} s", limit.as_secs()),
        }),
    }
}

impl Watch<'_> {
    async fn follow(&mut self, out: &mut dyn Write) -> Result<u8, Error> {
        let mut cuts = 0;
        loop {
            let seen = self.seen.len();
            match self.one_stream(out).await {
                Ok(Some(code)) => return Ok(code),
                Ok(None) => {}
                Err(error) if error.is_passing() && cuts < CUTS => {}
                Err(error) => return Err(error),
            }
            cuts = if self.seen.len() > seen { 0 } else { cuts + 1 };
            if cuts > CUTS {
                return Err(self.client.broken("it is cut again and again".to_owned()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn one_stream(&mut self, out: &mut dyn Write) -> Result<Option<u8>, Error> {
        let mut answer = self.client.events(&self.path, self.last.as_deref()).await?;
        let mut parser = Parser::default();
        loop {
            let bytes = match tokio::time::timeout(SILENCE, answer.next()).await {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(Some(Err(e))) => return Err(self.client.broken(e.to_string())),
                Ok(None) | Err(_) => return Ok(None),
            };
            let events =
                parser.feed(&bytes).ok_or_else(|| self.client.broken("an event is too long".to_owned()))?;
            for event in events {
                if let Some(code) = self.take(&event, out)? {
                    return Ok(Some(code));
                }
            }
        }
    }

    fn take(&mut self, event: &Event, out: &mut dyn Write) -> Result<Option<u8>, Error> {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match event.name.as_str() {
            "entry" => {
                let id = event.id.clone().unwrap_or_else(|| event.data.clone());
                self.last = Some(id.clone());
                if self.seen.insert(id) {
                    self.entry(&data, out)?;
                }
            }
            "job" => {
                self.state = text(&data, "state");
                self.progress(&data, out)?;
            }
            "end" => {
                let state = text(&data, "state");
                if self.as_json {
                    writeln!(out, "{data}")?;
                }
                return Ok(Some(exit_code(&state)));
            }
            _ => {}
        }
        Ok(None)
    }

    /// How far a group is, each time that changes.
    fn progress(&mut self, job: &Value, out: &mut dyn Write) -> Result<(), Error> {
        let Some(why) = job.get("why").filter(|why| text(why, "code") == "verdict-children") else {
            return Ok(());
        };
        let far = text(why, "text");
        if self.far != far {
            self.far.clone_from(&far);
            let entry =
                json!({ "at": job.get("changedAt"), "what": "progress", "text": far, "detail": null });
            self.entry(&entry, out)?;
        }
        Ok(())
    }

    fn entry(&self, entry: &Value, out: &mut dyn Write) -> Result<(), Error> {
        if !self.as_json {
            return show::entry(out, entry);
        }
        writeln!(out, "{entry}")?;
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, LONGEST_EVENT, Parser};

    fn event(id: Option<&str>, name: &str, data: &str) -> Event {
        Event { id: id.map(str::to_owned), name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text = b": hello\n\nid: 5.a\nevent: entry\ndata: {\"x\":\"\xc3\xbc\"}\n\nevent:end\r\ndata:{}\r\n\r\nevent: half\n";
        let expected = vec![event(Some("5.a"), "entry", "{\"x\":\"ü\"}"), event(None, "end", "{}")];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let found: Vec<Event> =
                text.chunks(size).flat_map(|part| parser.feed(part).expect("short")).collect();
            assert_eq!(found, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.feed(&vec![b'x'; LONGEST_EVENT + 1]).is_none());
    }
}
