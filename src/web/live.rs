//! Server-sent events: frames, how many streams there may be, and the stream of one job.
//!
//! News of a change is only a hint: rows are read again, and every few seconds even without one, because another
//! process may have written them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Bytes;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Fault;
use crate::crypto::{hex, sha256};
use crate::jobs::timeline::{Entry, timeline};
use crate::model::JobUid;
use crate::store::provisioning::job::History;

/// Streams of one session or key.
pub const MOST_EACH: usize = 16;
/// Streams in all.
pub const MOST: usize = 1000;
/// Something is sent at least this often, so that both ends notice a cut line.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Rows are read again this often even without news.
const REREAD: Duration = Duration::from_secs(5);
/// Changes that come within this time are sent together.
pub const GATHER: Duration = Duration::from_millis(200);
/// Frames that may wait for a slow client.
const WAITING: usize = 64;

/// Counts open streams.
#[derive(Debug, Default)]
pub struct Streams {
    open: Mutex<HashMap<String, usize>>,
}

/// One open stream; dropping it makes room.
#[derive(Debug)]
pub struct Seat {
    streams: Arc<Streams>,
    owner: String,
}

impl Streams {
    /// Room for one more stream of this owner.
    ///
    /// # Errors
    /// 503 when the owner, or all together, have as many as there may be.
    pub fn seat(self: &Arc<Self>, owner: &str) -> Result<Seat, Fault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= MOST {
            return Err(Fault::busy("too many streams of events are open; poll, or try again in a second"));
        }
        let mine = open.entry(owner.to_owned()).or_default();
        if *mine >= MOST_EACH {
            let message = format!("you have {MOST_EACH} streams of events open; close one first");
            return Err(Fault::busy(message));
        }
        *mine += 1;
        Ok(Seat { streams: Arc::clone(self), owner: owner.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = open.get_mut(&self.owner) {
            *mine -= 1;
            if *mine == 0 {
                open.remove(&self.owner);
            }
        }
    }
}

/// The writing end of one stream. Dropping it ends the stream.
pub struct Line {
    frames: mpsc::Sender<Bytes>,
    beat: Instant,
    _seat: Seat,
}

/// The client is gone; nothing more can be said to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

/// What woke a stream up.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// These jobs may have changed.
    Changed(HashSet<JobUid>),
    /// Anything may have changed: news were lost, or the time to read again has come.
    Anything,
}

impl Line {
    /// A stream: this end, and the answer the client reads.
    #[must_use]
    pub fn open(seat: Seat) -> (Self, HttpResponse) {
        let (frames, mut waiting) = mpsc::channel::<Bytes>(WAITING);
        let body = futures_util::stream::poll_fn(move |cx| {
            waiting.poll_recv(cx).map(|frame| frame.map(Ok::<_, actix_web::Error>))
        });
        let answer = HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header((CACHE_CONTROL, "no-store"))
            // Frames of a compressed stream would wait for a full block.
            .insert_header(("content-encoding", "identity"))
            .insert_header(("x-accel-buffering", "no"))
            .streaming(body);
        (Self { frames, beat: Instant::now() + HEARTBEAT, _seat: seat }, answer)
    }

    /// Sends one event. Waits while the client is slow.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn event(&mut self, name: &str, id: Option<&str>, data: &Value) -> Result<(), Gone> {
        let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
        self.send(format!("event: {name}\n{id}data: {data}\n\n")).await
    }

    async fn send(&mut self, frame: String) -> Result<(), Gone> {
        if self.frames.send(Bytes::from(frame)).await.is_err() {
            return Err(Gone);
        }
        self.beat = Instant::now() + HEARTBEAT;
        Ok(())
    }

    /// Waits for news, or for the time to read again, and says something when nothing was said for long.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn next(&mut self, changes: &mut broadcast::Receiver<JobUid>) -> Result<Woken, Gone> {
        let reread = Instant::now() + REREAD;
        loop {
            let frames = self.frames.clone();
            tokio::select! {
                () = frames.closed() => return Err(Gone),
                () = sleep_until(self.beat) => self.send(": still here\n\n".to_owned()).await?,
                () = sleep_until(reread) => return Ok(Woken::Anything),
                news = changes.recv() => match news {
                    Ok(uid) => return Ok(gather(uid, changes).await),
                    Err(RecvError::Lagged(_)) => return Ok(Woken::Anything),
                    Err(RecvError::Closed) => return Err(Gone),
                },
            }
        }
    }
}

/// What else changes within a moment: it goes into the same batch.
async fn gather(first: JobUid, changes: &mut broadcast::Receiver<JobUid>) -> Woken {
    let mut found = HashSet::from([first]);
    let until = Instant::now() + GATHER;
    while let Ok(news) = timeout_at(until, changes.recv()).await {
        match news {
            Ok(uid) => {
                found.insert(uid);
            }
            Err(RecvError::Lagged(_)) => return Woken::Anything,
            Err(RecvError::Closed) => break,
        }
    }
    Woken::Changed(found)
}

/// Follows one job to its end: `entry` for each line of its timeline, `job` for each change of its row, `end`.
///
/// An event's id is time and mark of its entry. After `last` only entries up to five seconds before it are sent again:
/// a reader drops those it has.
///
/// # Errors
/// [`Gone`].
pub async fn follow<L, F>(
    mut line: Line,
    mut changes: broadcast::Receiver<JobUid>,
    uid: JobUid,
    last: Option<&str>,
    mut load: L,
) -> Result<(), Gone>
where
    L: FnMut() -> F,
    F: Future<Output = Result<Option<History>, crate::store::Error>>,
{
    let from = last.and_then(|id| id.split_once('.')).and_then(|(at, _)| at.parse::<i64>().ok());
    let from = from.map_or(i64::MIN, |at| at.saturating_sub(5_000_000));
    let mut sent = HashSet::new();
    let mut version = None;
    loop {
        match load().await {
            Ok(Some(history)) => {
                for (id, entry) in new_entries(&history, from, &mut sent) {
                    line.event("entry", Some(&id), &super::rest::show::entry(&entry)).await?;
                }
                let job = super::rest::show::job(&history.job);
                if version.replace(history.job.version) != Some(history.job.version) {
                    line.event("job", None, &job).await?;
                }
                if history.job.state.is_end() {
                    return line.event("end", None, &job).await;
                }
            }
            Ok(None) => return line.event("gone", None, &json!({})).await,
            // The database is away for a moment: the next round reads again.
            Err(error) => log::debug!("a stream of job {uid} could not be read: {error}"),
        }
        while let Woken::Changed(found) = line.next(&mut changes).await? {
            if found.contains(&uid) {
                break;
            }
        }
    }
}

/// Entries not sent yet, with their ids.
fn new_entries(history: &History, from: i64, sent: &mut HashSet<String>) -> Vec<(String, Entry)> {
    timeline(history)
        .into_iter()
        // That it runs and waits for nothing is no news: the event `job` says it.
        .filter(|entry| entry.what != "why" || entry.detail.is_some())
        .filter_map(|entry| {
            let mark = mark(&entry);
            // A mark is sent once even when its time moves (what a job waits for).
            (entry.at.0 >= from && sent.insert(mark.clone()))
                .then(|| (format!("{}.{mark}", entry.at.0), entry))
        })
        .collect()
}

/// What makes an entry the same one when it is read again. A claim names its node only while it holds, so it is known
/// by its time; the time of others may move.
fn mark(entry: &Entry) -> String {
    let detail = entry.detail.as_deref().unwrap_or_default();
    let text = match entry.what {
        "claimed" => format!("claimed\n{}", entry.at.0),
        what => format!("{what}\n{}\n{detail}", entry.text),
    };
    hex::encode(&sha256(text)).chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::timeline::samples;
    use crate::model::{JobState, Micros};
    use actix_web::body::{BodyStream, MessageBody};
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn seats_are_bounded_for_one_and_for_all_and_come_back() {
        let streams = Arc::new(Streams::default());
        let mut seats: Vec<Seat> = (0..MOST_EACH).map(|_| streams.seat("me").expect("room")).collect();
        assert_eq!(streams.seat("me").expect_err("too many").status(), 503);
        seats.pop();
        assert!(streams.seat("me").is_ok());
        let others: Vec<Seat> =
            (0..).map_while(|n: usize| streams.seat(&format!("p{}", n / MOST_EACH)).ok()).collect();
        assert_eq!(others.len() + seats.len(), MOST);
        drop((others, seats));
        assert!(streams.open.lock().expect("whole").is_empty());
    }

    async fn read(body: &mut (impl MessageBody + Unpin), until: &str) -> String {
        let mut text = String::new();
        while !text.contains(until) {
            let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_next(cx));
            let frame = tokio::time::timeout(Duration::from_secs(10), next).await.expect("in time");
            let Some(Ok(frame)) = frame else { break };
            text.push_str(std::str::from_utf8(&frame).expect("text"));
        }
        text
    }

    fn body_of(answer: HttpResponse) -> impl MessageBody + Unpin {
        assert_eq!(answer.headers().get("content-type").expect("typed"), "text/event-stream");
        Box::pin(BodyStream::new(Box::pin(futures_util::stream::unfold(
            answer.into_body(),
            |mut body| async move {
                let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_next(cx)).await?;
                Some((next, body))
            },
        ))))
    }

    #[actix_rt::test]
    async fn a_stream_tells_each_entry_once_and_ends_with_the_job() {
        let rows = Rc::new(RefCell::new(samples::launch()));
        let uid = rows.borrow().job.uid;
        let (news, changes) = broadcast::channel(8);
        let streams = Arc::new(Streams::default());
        let (line, answer) = Line::open(streams.seat("k").expect("room"));
        let (loaded, read_rows) = (Rc::clone(&rows), Rc::clone(&rows));
        drop(loaded);
        actix_rt::spawn(async move {
            let load = || std::future::ready(Ok(Some(read_rows.borrow().clone())));
            follow(line, changes, uid, None, load).await
        });
        let mut body = body_of(answer);
        let first = read(&mut body, "event: job").await;
        assert_eq!(first.matches("event: entry").count(), 7, "{first}");
        assert!(!first.contains("event: end"));
        {
            let mut rows = rows.borrow_mut();
            rows.job.state = JobState::Complete;
            rows.job.ended_at = Some(Micros(60));
            rows.job.message = Some("41\nevent: forged".to_owned());
            rows.job.version += 1;
        }
        news.send(JobUid::random()).expect("somebody listens");
        news.send(uid).expect("somebody listens");
        let rest = read(&mut body, "event: end").await;
        assert_eq!(rest.matches("event: entry").count(), 1, "{rest}");
        assert!(!rest.contains("\nevent: forged"), "{rest}");
        assert_eq!(read(&mut body, "never").await, "");
        assert!(streams.open.lock().expect("whole").is_empty());
    }

    #[test]
    fn a_reader_that_comes_back_gets_five_seconds_again() {
        let mut history = samples::launch();
        history.job.created_at = Micros(0);
        history.job.changed_at = Micros(20_000_000);
        let later = new_entries(&history, 15_000_000, &mut HashSet::new());
        assert_eq!(later.iter().map(|(_, entry)| entry.what).collect::<Vec<_>>(), ["why"]);
        assert!(later[0].0.starts_with("20000000."), "{}", later[0].0);
    }
}
