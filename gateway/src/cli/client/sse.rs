//! Server-sent events, taken out of an answer as it comes.  Spec: HTML, "Server-sent events".

/// Longest event that is kept in memory.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its kind.
    pub(crate) name: String,
    /// What it says.
    pub(crate) data: String,
}

/// What of a stream has come and is not yet an event.
#[derive(Debug, Default)]
pub(crate) struct Events {
    text: Vec<u8>,
}

impl Events {
    /// Takes a piece of the answer and gives the events that are whole by it; `None` where one is longer than any is.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Option<Vec<Event>> {
        self.text.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.text.drain(..end + 2).collect();
            events.extend(event(&String::from_utf8_lossy(&block)));
        }
        (self.text.len() <= MAX_EVENT_BYTES).then_some(events)
    }
}

fn event(block: &str) -> Option<Event> {
    let mut name = "message".to_owned();
    let mut data: Vec<&str> = Vec::new();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => data.push(value),
            // Comments, ids.
            _ => {}
        }
    }
    (!data.is_empty()).then(|| Event {
        name,
        data: data.join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_pieces() {
        let mut events = Events::default();
        let text =
            b": open\n\nid: 7\nevent: change\ndata: {\"a\":\ndata: 1}\n\ndata:x\n\nevent: end\n";
        let mut found = Vec::new();
        for piece in text.chunks(3) {
            found.extend(events.take(piece).expect("short"));
        }
        let want = |name: &str, data: &str| Event {
            name: name.to_owned(),
            data: data.to_owned(),
        };
        assert_eq!(found, [want("change", "{\"a\":\n1}"), want("message", "x")]);
        assert!(events.take(&vec![b'x'; MAX_EVENT_BYTES]).is_none());
    }
}
