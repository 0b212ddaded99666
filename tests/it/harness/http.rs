//! HTTP/1.1 over one kept connection, with every failure sorted into "never sent" and "nobody knows".

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The same, if the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// No connection: the request never left.
    #[error("not sent")]
    NotSent(#[source] io::Error),
    /// The request may have been taken or not.
    #[error("no answer")]
    Indefinite(#[source] io::Error),
}

/// One connection at a time to one host.
pub(crate) struct Http {
    host: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Http {
    /// To `http://host:port`, with or without a path.
    pub(crate) fn new(url: &str) -> Self {
        let host = url.strip_prefix("http://").expect("plain HTTP on loopback");
        let host = host.split('/').next().unwrap_or_default().to_owned();
        Self { host, connection: None }
    }

    /// The header `Host`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Sends one request. Headers are written as given, `Host` and `Content-Length` are added.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Answer, NoAnswer> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().map_err(NoAnswer::NotSent)?);
        }
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        let mut connection = self.connection.take().expect("just made");
        let answer = exchange(&mut connection, &request).map_err(NoAnswer::Indefinite)?;
        if answer.headers.get("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.host)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

fn exchange(connection: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<Answer> {
    connection.get_mut().write_all(request)?;
    let mut line = read_line(connection)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| broken(&line))?;
    let mut headers = BTreeMap::new();
    loop {
        line = read_line(connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken(&line))?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let body = read_body(connection, &headers, status)?;
    Ok(Answer { status, headers, body })
}

fn read_body(
    connection: &mut BufReader<TcpStream>,
    headers: &BTreeMap<String, String>,
    status: u16,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        loop {
            let line = read_line(connection)?;
            let length =
                usize::from_str_radix(line.trim(), 16).map_err(|e| broken(&format!("{line}: {e}")))?;
            let start = body.len();
            body.resize(start + length, 0);
            connection.read_exact(&mut body[start..])?;
            read_line(connection)?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
    let length = match headers.get("content-length") {
        Some(length) => length.parse().map_err(|e| broken(&format!("{length}: {e}")))?,
        None if status == 204 => 0,
        None => return Err(broken("an answer without a length")),
    };
    body.resize(length, 0);
    connection.read_exact(&mut body)?;
    Ok(body)
}

fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("\"{what}\" is no part of an answer"))
}
