//! Lines over a stream, with a bound.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Reads one line, without its end; `None` when the other side hung up before one began.
/// A longer line than `limit`, or one cut off, is an error.
pub(super) async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return if line.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        let end = chunk.iter().position(|b| *b == b'\n');
        let taken = end.unwrap_or(chunk.len());
        if line.len() + taken > limit {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a line has more than {limit} bytes")));
        }
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// Completes when the other side hung up. What it still sends is passed over; `heard` is told that there was something.
pub(super) async fn hung_up(reader: &mut (impl AsyncBufRead + Unpin), heard: impl Fn()) {
    loop {
        let read = match reader.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(chunk) => chunk.len(),
        };
        heard();
        reader.consume(read);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, BufReader};

    use super::*;

    #[tokio::test]
    async fn lines_arrive_however_they_are_cut() {
        let text = b"first\n\nthird line\n";
        for capacity in 1..text.len() {
            let mut reader = BufReader::with_capacity(capacity, &text[..]);
            assert_eq!(read_line(&mut reader, 100).await.unwrap().as_deref(), Some(&b"first"[..]));
            assert_eq!(read_line(&mut reader, 100).await.unwrap().as_deref(), Some(&b""[..]));
            assert_eq!(read_line(&mut reader, 100).await.unwrap().as_deref(), Some(&b"third line"[..]));
            assert_eq!(read_line(&mut reader, 100).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn the_limit_is_exact() {
        assert_eq!(read_line(&mut &b"12345\n"[..], 5).await.unwrap().as_deref(), Some(&b"12345"[..]));
        assert_eq!(read_line(&mut &b"123456\n"[..], 5).await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(read_line(&mut &b"cut off"[..], 50).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let mut endless = BufReader::new(tokio::io::repeat(b'x'));
        assert_eq!(read_line(&mut endless, 1000).await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn hanging_up_is_noticed_behind_what_was_sent() {
        let (mut here, there) = tokio::io::duplex(16);
        // At most once for each byte.
        let (heard, mut said) = tokio::sync::mpsc::channel(1000);
        let watcher = tokio::spawn(async move {
            let told = || assert!(heard.try_send(()).is_ok());
            hung_up(&mut BufReader::new(there), told).await;
        });
        here.write_all(&[b'x'; 1000]).await.unwrap();
        assert!(!watcher.is_finished());
        assert_eq!(said.recv().await, Some(()));
        drop(here);
        watcher.await.unwrap();
    }
}
