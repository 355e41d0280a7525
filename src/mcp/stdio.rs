//! The transport over stdin and stdout.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rmcp::ServiceExt as _;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::server::{Offers, Session};

/// The most bytes of a line: a payload of 1 MiB, escaped, with what is around it.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// Serves the client at the other end of stdin and stdout until it hangs up, or `stop` is cancelled. The error says why it
/// could not begin.
pub(crate) async fn serve(link: Link, stop: CancellationToken) -> Result<(), String> {
    let closing = stop.child_token();
    let (stdin, stdout) = rmcp::transport::io::stdio_pipes();
    let stdin = Ending { inner: stdin, ended: closing.clone() };
    let transport = AsyncRwTransport::new_server(stdin, stdout).with_max_line_length(MAX_LINE);
    let session = Session::new(link, Offers::default(), closing.clone());
    let running = match session.serve_with_ct(transport, stop).await {
        Ok(running) => running,
        // It left before it said hello.
        Err(_) if closing.is_cancelled() => return Ok(()),
        Err(e) => return Err(e.to_string()),
    };
    running.waiting().await.map(|_| ()).map_err(|e| e.to_string())
}

/// Tells when the other side has hung up: what waits for it then ends at once, and a task that would be handed to it stays.
struct Ending<R> {
    inner: R,
    ended: CancellationToken,
}

impl<R: AsyncRead + Unpin> AsyncRead for Ending<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Ok(())) if buffer.filled().len() > before || buffer.remaining() == 0 => {}
            Poll::Ready(_) => self.ended.cancel(),
            Poll::Pending => {}
        }
        polled
    }
}
