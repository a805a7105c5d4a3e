//! The text of a JSON record: where it stands, and how it is taken from there.

use super::jsonscan::{Scanned, Trouble, begins, goes_on, key, skip, space};
use super::jsonstring::string;
use super::reading::{LOOK_BYTES, TEXT_NAMES, go_on};
use super::records::Records;
use super::window::{Bytes, Slice};
use crate::error::Result;

/// The text of a long record is handed on in chunks of at least so much.
const CHUNK_BYTES: usize = 64 << 10;

/// Where in a record its text stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    /// Keys and numbers from the record inwards; texts of several places follow each other.
    paths: Vec<Vec<String>>,
    /// Whether a line end follows each text.
    lines: bool,
}

impl Field {
    /// The place that a dotted path names.
    pub fn named(path: &str) -> Field {
        Field { paths: vec![path.split('.').map(String::from).collect()], lines: false }
    }

    fn prompt_and_completion() -> Field {
        Field { paths: vec![vec!["prompt".into()], vec!["completion".into()]], lines: true }
    }

    /// Those of the places in `live`, bits of which agree with a record so far, that agree with one more key.
    fn agreeing(&self, live: u8, depth: usize, key: &[u8]) -> u8 {
        let agrees = |slot: usize| live >> slot & 1 == 1 && self.paths[slot].get(depth).is_some_and(|name| name.as_bytes() == key);
        (0..self.paths.len()).filter(|slot| agrees(*slot)).fold(0, |live, slot| live | 1 << slot)
    }
}

/// What a member of an object is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// An array that begins with a string.
    Texts,
    /// An array that begins with an object.
    Records,
    /// An object whose first key is a number and whose first value is a string: a column as pandas writes it.
    Numbered,
    /// Anything else.
    Other,
}

/// Keys and kinds of the members of the object at the start of `bytes`, as far as they go.
pub(crate) fn members(bytes: &[u8]) -> Vec<(String, Kind)> {
    let mut found = Vec::new();
    // What cannot be read is found out, and said, when it is read.
    let _ = look(&mut Slice::new(&bytes[..bytes.len().min(LOOK_BYTES)], 0), &mut found);
    found
}

fn look(input: &mut Slice, found: &mut Vec<(String, Kind)>) -> Scanned<()> {
    let mut name = Vec::new();
    if space(input)? != Some(b'{') {
        return Ok(());
    }
    input.pass(1);
    let mut more = begins(input, b'}')?;
    while more {
        key(input, &mut name)?;
        let mut value = *input;
        found.push((String::from_utf8_lossy(&name).into_owned(), kind(&mut value, &mut name).unwrap_or(Kind::Other)));
        skip(input)?;
        more = goes_on(input, b'}')?;
    }
    Ok(())
}

/// What the value at the start of `bytes` is.
pub(crate) fn kind_of(bytes: &[u8]) -> Kind {
    kind(&mut Slice::new(&bytes[..bytes.len().min(LOOK_BYTES)], 0), &mut Vec::new()).unwrap_or(Kind::Other)
}

fn kind(value: &mut Slice, name: &mut Vec<u8>) -> Scanned<Kind> {
    let first = space(value)?;
    if first == Some(b'"') {
        return Ok(Kind::Text);
    }
    if !matches!(first, Some(b'[' | b'{')) {
        return Ok(Kind::Other);
    }
    value.pass(1);
    if first == Some(b'{') {
        key(value, name)?;
        let numbered = !name.is_empty() && name.iter().all(u8::is_ascii_digit) && space(value)? == Some(b'"');
        return Ok(if numbered { Kind::Numbered } else { Kind::Other });
    }
    Ok(match space(value)? {
        Some(b'"') => Kind::Texts,
        Some(b'{') => Kind::Records,
        _ => Kind::Other,
    })
}

/// Where the text of a record with these members is likely to stand.
pub(crate) fn guess(members: &[(String, Kind)]) -> Option<Field> {
    let has = |name: &str, kind: Kind| members.iter().rfind(|(key, _)| key == name).is_some_and(|(_, of)| *of == kind);
    let named = TEXT_NAMES.into_iter().find(|name| has(name, Kind::Text));
    let named = named.or(has("messages", Kind::Records).then_some("messages"));
    let pair = || (has("prompt", Kind::Text) && has("completion", Kind::Text)).then(Field::prompt_and_completion);
    named.map(Field::named).or_else(pair)
}

/// That no text was found where it is looked for, and where it might be.
pub(crate) fn no_guess(members: &[(String, Kind)]) -> String {
    let mut names: Vec<String> = members.iter().filter(|(_, kind)| *kind == Kind::Text).map(|(name, _)| format!("{name:?}")).collect();
    names.truncate(20);
    let names = if names.is_empty() { "none".into() } else { names.join(", ") };
    format!(
        "no text under text, content, body, messages, or prompt and completion; \
         fields with a text are {names}; name the one to use with --text-field NAME"
    )
}

/// The text of one record, as it is found.
#[derive(Default)]
pub(crate) struct Taken<'r> {
    slots: [Slot; 2],
    /// Keys are put together here.
    key: Vec<u8>,
    /// Where the text of a long record goes at once.
    long: Option<Long<'r>>,
}

#[derive(Default)]
struct Slot {
    text: Vec<u8>,
    /// Bytes of it, handed on or not.
    bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Absent,
    Wrong(&'static str),
    Found,
}

struct Long<'r> {
    out: &'r mut dyn Records,
    start: u64,
    slot: usize,
    begun: bool,
    pending: Vec<u8>,
}

impl Long<'_> {
    fn flush(&mut self) -> Result<()> {
        let result = go_on(self.out, &mut self.begun, &self.pending, self.start);
        self.pending.clear();
        result
    }
}

impl<'r> Taken<'r> {
    /// Hands the text of a record that begins at `start` on as it is found.
    pub fn long(out: &'r mut dyn Records, start: u64) -> Self {
        Taken { long: Some(Long { out, start, slot: 0, begun: false, pending: Vec::new() }), ..Taken::default() }
    }

    /// Whether some text was found, and perhaps handed on.
    pub fn begun(&self) -> bool {
        self.slots.iter().any(|slot| slot.bytes > 0)
    }

    /// Ends a long record.
    pub fn end_long(&mut self, end: u64) -> Result<()> {
        let begun = self.begun();
        let Some(long) = self.long.as_mut().filter(|_| begun) else { return Ok(()) };
        long.flush()?;
        long.out.end(end)
    }

    /// Forgets the record before.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.text.clear();
            (slot.bytes, slot.state) = (0, State::Absent);
        }
    }

    /// The text of a record that is not long.
    pub fn whole(&mut self) -> &[u8] {
        let [first, second] = &mut self.slots;
        first.text.append(&mut second.text);
        &first.text
    }

    fn text(&mut self, slot: usize, bytes: &[u8]) -> Scanned<()> {
        self.slots[slot].bytes += bytes.len();
        let Some(long) = &mut self.long else {
            self.slots[slot].text.extend_from_slice(bytes);
            return Ok(());
        };
        if slot < long.slot {
            return Err(Trouble::Fatal(long.start, "the completion stands before the prompt in a record too long to hold".into()));
        }
        long.slot = slot;
        long.pending.extend_from_slice(bytes);
        if long.pending.len() >= CHUNK_BYTES {
            long.flush()?;
        }
        Ok(())
    }

    /// Keeps only the first bytes: what stands there is given again, and the last one counts.
    fn rewind(&mut self, slot: usize, bytes: usize) -> Scanned<()> {
        let slot = &mut self.slots[slot];
        if let Some(long) = self.long.as_ref().filter(|_| slot.bytes > bytes) {
            return Err(Trouble::Fatal(long.start, "its text stands there twice, in a record too long to hold".into()));
        }
        slot.text.truncate(bytes);
        slot.bytes = bytes;
        Ok(())
    }

    /// What is wrong with the record, if anything is.
    pub fn wrong(&self, field: Option<&Field>) -> Option<String> {
        let n = field.map_or(1, |field| field.paths.len());
        let slot = self.slots[..n].iter().position(|slot| slot.state != State::Found)?;
        let path = field.map(|field| field.paths[slot].join("."));
        Some(match (self.slots[slot].state, path) {
            (State::Wrong(what), None) => format!("{what}, not a text"),
            (State::Wrong(what), Some(path)) => format!("{path:?} is {what}, not a text"),
            (_, Some(path)) => format!("there is no {path:?}"),
            (_, None) => "there is no text".into(),
        })
    }
}

/// Reads a record. A string is its own text; without a field nothing else has one.
pub(crate) fn record(input: &mut impl Bytes, field: Option<&Field>, taken: &mut Taken) -> Scanned<()> {
    let first = space(input)?;
    if first == Some(b'"') {
        taken.slots.iter_mut().for_each(|slot| slot.state = State::Found);
        input.pass(1);
        return string(input, &mut |bytes| taken.text(0, bytes));
    }
    match (field, first) {
        (Some(field), Some(b'{' | b'[')) => walk(input, field, (1 << field.paths.len()) - 1, 0, taken),
        _ => {
            taken.slots.iter_mut().for_each(|slot| slot.state = State::Wrong(described(first)));
            skip(input)
        }
    }
}

fn described(first: Option<u8>) -> &'static str {
    match first {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'n') => "null",
        Some(b't' | b'f') => "true or false",
        _ => "a number",
    }
}

/// Reads a value on the way to a text: places in `live` agree with the `depth` keys that lead to it.
fn walk(input: &mut impl Bytes, field: &Field, live: u8, depth: usize, taken: &mut Taken) -> Scanned<()> {
    let close = match space(input)? {
        Some(b'{') => b'}',
        Some(b'[') => b']',
        _ => return skip(input),
    };
    input.pass(1);
    let mut more = begins(input, close)?;
    let mut index = 0u64;
    while more {
        let next = if close == b'}' {
            key(input, &mut taken.key)?;
            field.agreeing(live, depth, &taken.key)
        } else {
            field.agreeing(live, depth, index.to_string().as_bytes())
        };
        member(input, field, next, depth + 1, taken)?;
        more = goes_on(input, close)?;
        index += 1;
    }
    Ok(())
}

fn member(input: &mut impl Bytes, field: &Field, live: u8, depth: usize, taken: &mut Taken) -> Scanned<()> {
    if live == 0 {
        return skip(input);
    }
    let slots = (0..field.paths.len()).filter(|slot| live >> slot & 1 == 1);
    for slot in slots.clone() {
        taken.rewind(slot, 0)?;
        taken.slots[slot].state = State::Absent;
    }
    match slots.into_iter().find(|slot| field.paths[*slot].len() == depth) {
        Some(slot) => target(input, slot, field.lines, taken),
        None => walk(input, field, live, depth, taken),
    }
}

/// Reads the value that is a text, or a list of messages.
fn target(input: &mut impl Bytes, slot: usize, lines: bool, taken: &mut Taken) -> Scanned<()> {
    let first = space(input)?;
    taken.slots[slot].state = State::Found;
    match first {
        Some(b'"') => {
            input.pass(1);
            string(input, &mut |bytes| taken.text(slot, bytes))?;
            if lines { taken.text(slot, b"\n") } else { Ok(()) }
        }
        Some(b'[') => {
            input.pass(1);
            let mut more = begins(input, b']')?;
            while more {
                message(input, slot, taken)?;
                more = goes_on(input, b']')?;
            }
            Ok(())
        }
        _ => {
            taken.slots[slot].state = State::Wrong(described(first));
            skip(input)
        }
    }
}

/// Reads `{"role": ..., "content": ...}`: the content is text, followed by a line end.
fn message(input: &mut impl Bytes, slot: usize, taken: &mut Taken) -> Scanned<()> {
    if space(input)? != Some(b'{') {
        taken.slots[slot].state = State::Wrong("an array of something else than messages");
        return skip(input);
    }
    input.pass(1);
    let (before, mut found) = (taken.slots[slot].bytes, false);
    let mut more = begins(input, b'}')?;
    while more {
        key(input, &mut taken.key)?;
        if taken.key == b"content" {
            taken.rewind(slot, before)?;
            found = space(input)? == Some(b'"');
        }
        if taken.key == b"content" && found {
            input.pass(1);
            string(input, &mut |bytes| taken.text(slot, bytes))?;
        } else {
            skip(input)?;
        }
        more = goes_on(input, b'}')?;
    }
    if !found {
        taken.slots[slot].state = State::Wrong("an array with a message whose \"content\" is no text");
        return Ok(());
    }
    taken.text(slot, b"\n")
}

/// The outcome of a record that was read to its end.
pub(crate) fn judged(read: Scanned<()>, taken: &Taken, field: Option<&Field>, start: u64) -> Scanned<()> {
    read?;
    taken.wrong(field).map_or(Ok(()), |what| Err(Trouble::Flaw(start, what)))
}

/// Hands a record's text on, if there is any.
pub(crate) fn hand_on(out: &mut dyn Records, text: &[u8], start: u64, end: u64) -> Result<()> {
    if text.is_empty() { Ok(()) } else { out.whole(text, start, end) }
}
