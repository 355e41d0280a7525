//! XML as gateways write it: elements and their text. No document types, so no entities but those that XML itself has.

/// The deepest nesting.
const MAX_DEPTH: usize = 64;

/// An element that is over.
pub(super) struct Element<'a> {
    /// The names of those around it and its own, without prefixes.
    pub(super) path: Vec<&'a str>,
    /// Its own text, without that of the elements within and the blanks around.
    pub(super) text: String,
}

/// All elements in the order in which they end; `None` if this is no XML.
pub(super) fn texts(xml: &str) -> Option<impl Iterator<Item = Element<'_>>> {
    let reader = || Reader { rest: xml.trim_start_matches('\u{feff}'), open: Vec::new() };
    // What comes later may be nonsense, so it is read to its end before anything counts.
    let (mut first, mut any) = (reader(), false);
    while first.next()?.is_some() {
        any = true;
    }
    let mut again = reader();
    any.then(|| std::iter::from_fn(move || again.next().flatten()))
}

/// The text of the first element of that name.
pub(super) fn text_of(xml: &str, name: &str) -> Option<String> {
    texts(xml)?.find(|element| element.path.last() == Some(&name)).map(|element| element.text)
}

/// Whether there is an element of that name.
pub(super) fn has(xml: &str, name: &str) -> bool {
    text_of(xml, name).is_some()
}

struct Reader<'a> {
    rest: &'a str,
    /// The elements that are open: the whole name, and the text so far.
    open: Vec<(&'a str, String)>,
}

/// Without its prefix.
fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, name)| name)
}

impl<'a> Reader<'a> {
    /// The next element that ends; `Some(None)` at the end of the document, `None` for what isn't XML.
    fn next(&mut self) -> Option<Option<Element<'a>>> {
        loop {
            let Some(at) = self.rest.find('<') else {
                return (self.open.is_empty() && self.rest.trim().is_empty()).then_some(None);
            };
            let (text, rest) = self.rest.split_at(at);
            match self.open.last_mut() {
                Some((_, own)) => unescape(text, own)?,
                None if text.trim().is_empty() => {}
                None => return None,
            }
            self.rest = rest;
            if let Some(rest) = rest.strip_prefix("<!--") {
                self.rest = rest.split_once("-->")?.1;
            } else if let Some(rest) = rest.strip_prefix("<![CDATA[") {
                let (text, rest) = rest.split_once("]]>")?;
                self.open.last_mut()?.1.push_str(text);
                self.rest = rest;
            } else if let Some(rest) = rest.strip_prefix("<?") {
                self.rest = rest.split_once("?>")?.1;
            } else if let Some(rest) = rest.strip_prefix("</") {
                let (name, rest) = rest.split_once('>')?;
                self.rest = rest;
                return (self.open.last()?.0 == name.trim_end()).then(|| self.end());
            } else {
                let length = tag_length(&rest[1..])?;
                let (tag, after) = (&rest[1..1 + length], &rest[2 + length..]);
                self.rest = after;
                let name = tag.split(|c: char| c.is_ascii_whitespace() || c == '/').next().unwrap_or_default();
                let is_name = |c: char| c.is_alphanumeric() || "_:-.".contains(c);
                if name.is_empty() || !name.chars().all(is_name) || self.open.len() == MAX_DEPTH {
                    return None;
                }
                self.open.push((name, String::new()));
                if tag.ends_with('/') {
                    return Some(self.end());
                }
            }
        }
    }

    fn end(&mut self) -> Option<Element<'a>> {
        let path = self.open.iter().map(|(name, _)| local(name)).collect();
        let (_, text) = self.open.pop()?;
        Some(Element { path, text: text.trim().to_owned() })
    }
}

/// Where a tag ends: a `>` in an attribute's value isn't it.
fn tag_length(tag: &str) -> Option<usize> {
    let mut quote = None;
    tag.bytes().position(|byte| match quote {
        Some(end) => {
            if byte == end {
                quote = None;
            }
            false
        }
        None => {
            if matches!(byte, b'"' | b'\'') {
                quote = Some(byte);
            }
            byte == b'>'
        }
    })
}

fn unescape(text: &str, to: &mut String) -> Option<()> {
    let mut parts = text.split('&');
    to.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, after) = part.split_once(';')?;
        to.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let number = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                char::from_u32(number.ok()?)?
            }
        });
        to.push_str(after);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_have_their_own_text() {
        let xml = "<?xml version='1.0'?><!-- <no> --><a:x at=\"a > b\">one<b/>&lt;two&gt;<c d='/'> 3 <![CDATA[&amp;]]></c ></a:x>\n";
        let all: Vec<_> = texts(xml).unwrap().map(|element| (element.path.join("/"), element.text)).collect();
        let expected = [("x/b", ""), ("x/c", "3 &amp;"), ("x", "one<two>")];
        assert_eq!(all, expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
        assert_eq!(text_of(xml, "c"), Some("3 &amp;".to_owned()));
        assert!(has(xml, "x") && !has(xml, "a:x"));
    }

    #[test]
    fn what_is_no_xml_is_nothing() {
        let deep = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
        assert!(texts(&deep(MAX_DEPTH)).is_some());
        for nonsense in [
            "",
            " ",
            "<",
            "<>",
            "</a>",
            "<a>",
            "<a></b>",
            "<a/>b",
            "b<a/>",
            "<a",
            "<a at='>",
            "<a>&unknown;</a>",
            "<a>&#xd800;</a>",
            "<a>& </a>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<a><![CDATA[</a>",
            "<a><!--</a>",
            &deep(MAX_DEPTH + 1),
        ] {
            assert!(texts(nonsense).is_none(), "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_come(xml in "[<>/&;!?a:'\" \\[\\]CDATA#x1-]{0,60}") {
            let _ = texts(&xml).map(Iterator::count);
        }
    }
}
