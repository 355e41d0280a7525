//! Parts of messages and artifacts as payloads of the mesh, and back.

use ::a2a::{Part, PartContent};
use serde_json::{Map, Value, json};

/// The most parts of a message or of a result.
pub(crate) const MAX_PARTS: usize = 256;

/// The members that say what a part is; it has one of them.
const CONTENTS: [&str; 4] = ["text", "raw", "url", "data"];

/// Those that it may have beside.
const OTHERS: [&str; 3] = ["filename", "mediaType", "metadata"];

/// One text is a JSON string, one data part is its JSON; several, and files, are `{"parts":[..]}` as they are.
pub(crate) fn to_payload(parts: &[Part]) -> Result<Value, String> {
    match parts {
        [] => Err("a message needs at least one part".to_owned()),
        [Part { content: PartContent::Text(text), .. }] => Ok(Value::from(text.as_str())),
        [Part { content: PartContent::Data(data), .. }] => Ok(data.clone()),
        parts if parts.len() > MAX_PARTS => Err(format!("a message may have at most {MAX_PARTS} parts")),
        parts => Ok(json!({ "parts": parts })),
    }
}

/// The way back: a string is a text, `{"parts":[..]}` is those parts, anything else is one data part.
pub(crate) fn from_payload(payload: Value) -> Vec<Part> {
    match payload {
        Value::String(text) => vec![Part::text(text)],
        Value::Object(members) => match several(&members) {
            Some(parts) => parts,
            None => vec![Part::data(Value::Object(members))],
        },
        other => vec![Part::data(other)],
    }
}

/// The parts of `{"parts":[..]}`; `None` when it is something else that has a member of that name.
fn several(members: &Map<String, Value>) -> Option<Vec<Part>> {
    let parts = members.get("parts").filter(|_| members.len() == 1)?.as_array()?;
    if parts.is_empty() || parts.len() > MAX_PARTS || !parts.iter().all(is_part) {
        return None;
    }
    parts.iter().map(|part| serde_json::from_value(part.clone()).ok()).collect()
}

fn is_part(value: &Value) -> bool {
    let Value::Object(members) = value else { return false };
    let contents = members.keys().filter(|name| CONTENTS.contains(&name.as_str())).count();
    contents == 1 && members.keys().all(|name| CONTENTS.contains(&name.as_str()) || OTHERS.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_becomes_parts_and_the_same_payload_again() {
        for payload in [
            json!("text"),
            json!(""),
            json!({"a": [1, 2.5, null]}),
            json!(null),
            json!([1, "x"]),
            json!(true),
            json!({"parts": [{"text": "a"}, {"data": {"b": 1}}]}),
            json!({"parts": [{"raw": "AQID", "filename": "f.bin", "mediaType": "application/octet-stream"}]}),
            json!({"parts": [{"url": "https://example.org/x"}, {"text": "y", "metadata": {"k": 1}}]}),
            // Parts of something else.
            json!({"parts": [{"text": "bolt", "weight": 3}]}),
            json!({"parts": []}),
            json!({"parts": [1]}),
            json!({"parts": [{"text": "a"}, {"text": "b"}], "more": 1}),
            json!({"parts": [{"text": "a", "data": 1}]}),
        ] {
            let parts = from_payload(payload.clone());
            assert_eq!(to_payload(&parts).unwrap(), payload);
        }
    }

    #[test]
    fn files_and_several_parts_stay_what_they_are() {
        let parts = [Part::text("look"), Part::raw(vec![1, 2, 3]).with_filename("x")];
        let payload = to_payload(&parts).unwrap();
        assert_eq!(payload, json!({"parts": [{"text": "look"}, {"raw": "AQID", "filename": "x"}]}));
        assert_eq!(from_payload(payload), parts);
        assert!(to_payload(&[]).is_err());
        assert!(to_payload(&vec![Part::text("x"); MAX_PARTS + 1]).is_err());
    }
}
