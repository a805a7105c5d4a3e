//! Rules that put a mark where an address stood.

use super::spaces::{finish, push};
use memchr::memmem;
use std::borrow::Cow;

/// Addresses of web pages become `<url>`: from `http://`, `https://` or `www.` (any case) up to white space, one of
/// ``"<>\^`{|}`` or a sign that is no letter, without the punctuation that ends a sentence or a bracket around them.
pub fn mask_urls(text: &str, _: bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    // Where an address may be, by what is rare in text; after the first two of these `www.` is in either case.
    let mut hints = [&b"://"[..], b"ww.", b"WW."].map(|hint| memmem::find_iter(bytes, hint).peekable());
    let mut result = String::new();
    let mut kept = 0;
    loop {
        let nearest = hints.iter_mut().filter_map(|hint| Some((*hint.peek()?, hint))).min_by_key(|(at, _)| *at);
        let Some((at, hint)) = nearest else { break };
        hint.next();
        let start = if bytes[at] == b':' { scheme_start(bytes, kept, at) } else { www_start(bytes, kept, at) };
        if let Some(start) = start
            && let Some(end) = address_end(text, at + 3)
        {
            push(&mut result, text, kept..start);
            result.push_str("<url>");
            kept = end;
        }
    }
    finish(result, text, kept)
}

/// Where `http` or `https` before `at` begins, not before `from`.
fn scheme_start(bytes: &[u8], from: usize, at: usize) -> Option<usize> {
    let before = bytes.get(from..at)?;
    let ends_in = |name: &[u8]| before.len() >= name.len() && before[before.len() - name.len()..].eq_ignore_ascii_case(name);
    [&b"https"[..], b"http"].iter().find(|name| ends_in(name)).map(|name| at - name.len())
}

/// Where the `www` that ends at `at + 2` begins, not before `from` nor within a word.
fn www_start(bytes: &[u8], from: usize, at: usize) -> Option<usize> {
    let start = at.checked_sub(1).filter(|start| *start >= from && bytes[*start].eq_ignore_ascii_case(&b'w'))?;
    let is_inside = start > 0 && (bytes[start - 1].is_ascii_alphanumeric() || bytes[start - 1] == b'_' || bytes[start - 1] > 0x7f);
    (!is_inside).then_some(start)
}

/// Where the address that goes on at `from` ends, if one does.
fn address_end(text: &str, from: usize) -> Option<usize> {
    let rest = &text[from..];
    if !rest.chars().next().is_some_and(is_letter) {
        return None;
    }
    let body = &rest[..rest.find(|c| !is_of_address(c)).unwrap_or(rest.len())];
    let mut address = body;
    while let Some(last) = address.chars().next_back() {
        let is_outside = match last {
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '*' => true,
            ')' => !address.contains('('),
            ']' => !address.contains('['),
            _ => false,
        };
        if !is_outside {
            break;
        }
        address = &address[..address.len() - 1];
    }
    Some(from + address.len())
}

fn is_of_address(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}') } else { is_letter(c) }
}

/// Letters and digits of scripts that put spaces between words: in others an address ends where the text goes on.
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() && c < '\u{2e80}'
}

/// Addresses of mail become `<email>`: letters, digits and `.!#$%&'*+/=?^_~-` around an `@`, then names joined by dots
/// of which one after the first begins with two letters.
pub fn mask_emails(text: &str, _: bool) -> Cow<'_, str> {
    let mut result = String::new();
    let mut kept = 0;
    for at in memchr::memchr_iter(b'@', text.as_bytes()) {
        if at < kept {
            continue;
        }
        let start = user_start(&text[kept..at]).map(|start| kept + start);
        if let (Some(start), Some(width)) = (start, domain_width(&text[at + 1..])) {
            push(&mut result, text, kept..start);
            result.push_str("<email>");
            kept = at + 1 + width;
        }
    }
    finish(result, text, kept)
}

/// Where the name of the user begins that ends the text, if there is one.
fn user_start(text: &str) -> Option<usize> {
    let is_of_name = |c: char| is_letter(c) || ".!#$%&'*+/=?^_~-".contains(c);
    let start = text.char_indices().rev().take_while(|(_, c)| is_of_name(*c)).last()?.0;
    text[start..].find(is_letter).map(|skipped| start + skipped)
}

/// Bytes of the name of a domain that begins the text, if one does.
fn domain_width(text: &str) -> Option<usize> {
    let is_of_domain = |c: char| is_letter(c) || c == '-' || c == '.';
    let domain = &text[..text.find(|c| !is_of_domain(c)).unwrap_or(text.len())];
    let mut width = None;
    let mut end = 0;
    for (i, label) in domain.split('.').take_while(|label| !label.is_empty()).enumerate() {
        end += usize::from(i > 0) + label.len();
        if i > 0 && label.chars().take(2).filter(|c| c.is_alphabetic()).count() == 2 {
            width = Some(end - (label.len() - label.trim_end_matches('-').len()));
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_pages_are_masked() {
        for (text, expected) in [
            ("see http://a.b/c?d=e#f.", "see <url>."),
            ("HTTPS://A.B, Www.c.d; WWW.E.F!", "<url>, <url>; <url>!"),
            ("(http://en.wikipedia.org/wiki/A_(b)) and (www.c.d)", "(<url> and (<url>)"),
            ("[x](https://a.b/c) <http://a.b> \"www.x.y\"", "[x](<url>) <<url>> \"<url>\""),
            ("ftp://www.a.b http:// https://. www. wwww.a xwww.a", "ftp://<url> http:// https://. www. wwww.a xwww.a"),
            ("http://a@b:80/www.c.d://e", "<url>"),
            ("见http://a.b/c这里 http://müller.de”", "见<url>这里 <url>”"),
            ("http://a.b\nwww.c.d", "<url>\n<url>"),
        ] {
            assert_eq!(mask_urls(text, true), expected, "{text:?}");
        }
    }

    #[test]
    fn addresses_of_mail_are_masked() {
        for (text, expected) in [
            ("to a.b+c@d-e.co.uk.", "to <email>."),
            ("<jürgen@müller.de>, 'x@y.org'", "<<email>>, '<email>'"),
            ("a@b a@b.c a@b..de @b.de a@.de a@ 5@6.7", "a@b a@b.c a@b..de @b.de a@.de a@ 5@6.7"),
            ("x@y.com@z.org a@b@c.de", "<email>@z.org a@<email>"),
            ("...a@b.com-", "...<email>-"),
            ("写信给a@b.cn吧", "写信给<email>吧"),
            ("a@b.com.1", "<email>.1"),
        ] {
            assert_eq!(mask_emails(text, true), expected, "{text:?}");
        }
    }

    #[test]
    fn many_hints_cost_linear_time() {
        for part in ["://", "www.", "http://", "@", "a@", "a.b@c"] {
            let text = part.repeat(1 << 17);
            assert!(mask_urls(&text, true).len() <= text.len() && mask_emails(&text, true).len() <= 7 * text.len());
        }
    }
}
