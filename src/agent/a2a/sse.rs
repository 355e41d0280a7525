//! Server-sent events, read within bounds.

use reqwest::Response;

/// The most bytes of one event.
const MAX_EVENT: usize = 4 * 1024 * 1024;

/// The events of a response.
#[derive(Debug)]
pub(super) struct Events {
    response: Response,
    lines: Lines,
}

impl Events {
    pub(super) fn new(response: Response) -> Self {
        Self { response, lines: Lines::default() }
    }

    /// The data of the next event; `None` at the end. The error says why there is no more.
    pub(super) async fn next(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some(data) = self.lines.event()? {
                return Ok(Some(data));
            }
            match self.response.chunk().await {
                Ok(Some(piece)) => self.lines.add(&piece)?,
                Ok(None) => return Ok(None),
                Err(error) => return Err(crate::agent::web::innermost(&error)),
            }
        }
    }
}

/// What came and is not read yet. Whole lines are taken off; what has been looked through is not looked through again.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    looked: usize,
    data: Option<String>,
}

impl Lines {
    fn add(&mut self, piece: &[u8]) -> Result<(), String> {
        if self.buffer.len() + piece.len() > MAX_EVENT {
            return Err(too_long());
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    fn event(&mut self) -> Result<Option<String>, String> {
        let mut begin = 0;
        let mut found = None;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.looked..]) {
            let end = self.looked + at;
            let mut after = end + 1;
            if self.buffer[end] == b'\r' {
                match self.buffer.get(after) {
                    Some(b'\n') => after += 1,
                    Some(_) => {}
                    // The other half of a line's end may be on its way.
                    None => break,
                }
            }
            let line = std::str::from_utf8(&self.buffer[begin..end]).map_err(|_| "an event is no UTF-8".to_owned())?;
            if line.is_empty() {
                found = self.data.take();
            } else if let Some(data) = line.strip_prefix("data:") {
                let data = data.strip_prefix(' ').unwrap_or(data);
                let whole = self.data.get_or_insert_default();
                if whole.len() + data.len() > MAX_EVENT {
                    return Err(too_long());
                }
                if !whole.is_empty() {
                    whole.push('\n');
                }
                whole.push_str(data);
            }
            begin = after;
            self.looked = after;
            if found.is_some() {
                break;
            }
        }
        self.buffer.drain(..begin);
        self.looked = match (&found, self.buffer.last()) {
            (Some(_), _) => 0,
            (None, Some(b'\r')) => self.buffer.len() - 1,
            (None, _) => self.buffer.len(),
        };
        Ok(found)
    }
}

fn too_long() -> String {
    format!("an event has more than {MAX_EVENT} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut lines = Lines::default();
        let mut events = Vec::new();
        for piece in pieces {
            lines.add(piece)?;
            while let Some(event) = lines.event()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    #[test]
    fn events_are_the_same_however_they_arrive() {
        let text = "data: one\n\n: alive\n\nevent: x\nid: 7\ndata: two\ndata: lines\r\n\r\ndata:three\r\rdata: \u{e4}\n\ndata: rest";
        let expected = ["one", "two\nlines", "three", "\u{e4}"];
        assert_eq!(read(&[text.as_bytes()]).unwrap(), expected);
        for size in 1..9 {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(read(&pieces).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn endless_events_are_left() {
        let piece = vec![b'x'; 1024 * 1024];
        assert!(read(&[b"data: ", &piece, &piece, &piece, &piece]).is_err());
        let mut line = b"data: ".to_vec();
        line.extend_from_slice(&piece);
        line.push(b'\n');
        assert!(read(&[line.as_slice(); 6]).is_err());
        assert!(read(&[b"data: \xff\n\n"]).is_err());
    }
}
