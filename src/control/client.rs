//! The asking side.

use std::io;
use std::pin::pin;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split};

use super::framing::read_line;
use super::protocol::{Answer, Kind, MAX_REPLY, MAX_REQUEST, Progress, Request, VERSION};

/// Any stream that a conversation can go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// The node went away.
    #[error("the node went away before it answered")]
    Gone,
    /// The other side is another program version.
    #[error(
        "the running node speaks control version {0}, this command {VERSION}: use the same version of elo for both"
    )]
    Version(u32),
    /// Not what was agreed.
    #[error("the node's answer can't be read: {0}")]
    Unreadable(String),
    /// The request is too large.
    #[error("the request has {0} bytes, the limit is {MAX_REQUEST}")]
    TooLarge(usize),
}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Unreadable(error.to_string()),
            _ => Self::Gone,
        }
    }
}

/// A line of an answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// One of several; more follows.
    Item(Box<RawValue>),
    /// How far a call is; more follows.
    Progress(Progress),
    /// The end.
    Done(Box<RawValue>),
    /// The end: an object with `code` and `message`.
    Error(Box<RawValue>),
}

/// One request and its answer. Dropping it hangs up.
pub(crate) struct Client {
    reader: BufReader<ReadHalf<Box<dyn Stream>>>,
    writer: WriteHalf<Box<dyn Stream>>,
}

impl Client {
    pub(super) fn over(stream: impl Stream + 'static) -> Self {
        let (reader, writer) = split(Box::new(stream) as Box<dyn Stream>);
        Self { reader: BufReader::new(reader), writer }
    }

    /// Asks.
    pub(crate) async fn ask(&mut self, op: &str, args: &impl Serialize) -> Result<(), ControlError> {
        let unreadable = |e: serde_json::Error| ControlError::Unreadable(e.to_string());
        let request = Request { v: VERSION, op: op.to_owned(), args: to_raw_value(args).map_err(unreadable)? };
        let mut line = serde_json::to_vec(&request).map_err(unreadable)?;
        // JSON text given by a person may be spread over lines; white space is all that a line end in it can be.
        for byte in &mut line {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        if line.len() > MAX_REQUEST {
            return Err(ControlError::TooLarge(line.len()));
        }
        line.push(b'\n');
        match self.writer.write_all(&line).await {
            // A node that turns a client away says why before it hangs up: the answer tells.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Says that what was asked for has come: the node counts it as taken.
    #[cfg(feature = "mcp")]
    pub(crate) async fn has_it(&mut self) {
        // If it went away the answer tells.
        drop(self.writer.write_all(b"\n").await);
    }

    /// The next line of the answer.
    pub(crate) async fn reply(&mut self) -> Result<Reply, ControlError> {
        let line = read_line(&mut self.reader, MAX_REPLY).await?.ok_or(ControlError::Gone)?;
        Self::read(&line)
    }

    /// The next line of the answer; when `enough` completes, the node is told to come to an end. Once it has completed it
    /// becomes `None`.
    pub(crate) async fn reply_unless<F: Future<Output = ()> + Unpin>(
        &mut self,
        enough: &mut Option<F>,
    ) -> Result<Reply, ControlError> {
        let Self { reader, writer } = self;
        // Begun once: half a line would be lost with the future that has read it.
        let mut line = pin!(read_line(reader, MAX_REPLY));
        let line = loop {
            let Some(signal) = enough else { break line.await };
            tokio::select! {
                line = &mut line => break line,
                () = signal => {
                    *enough = None;
                    // If it went away the answer tells.
                    drop(writer.write_all(b"\n").await);
                }
            }
        };
        Self::read(&line?.ok_or(ControlError::Gone)?)
    }

    fn read(line: &[u8]) -> Result<Reply, ControlError> {
        let answer: Answer = serde_json::from_slice(line).map_err(|e| ControlError::Unreadable(e.to_string()))?;
        if answer.v != VERSION {
            return Err(ControlError::Version(answer.v));
        }
        Ok(match answer.kind {
            Kind::Item => Reply::Item(answer.data),
            Kind::Progress => Reply::Progress(
                serde_json::from_str(answer.data.get()).map_err(|e| ControlError::Unreadable(e.to_string()))?,
            ),
            Kind::Done => Reply::Done(answer.data),
            Kind::Error => Reply::Error(answer.data),
        })
    }
}
