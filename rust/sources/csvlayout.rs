//! How the rows of a CSV file are laid out: told by the options, or seen in its first rows.

use super::csv::{End, field};
use super::reading::{Reading, TEXT_NAMES};
use super::window::{Bytes, Slice};
use crate::error::{Error, Result};
use std::path::Path;

/// Rows that are looked at.
const LOOK_ROWS: usize = 100;
/// What may stand between fields, the likelier first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// How rows are laid out.
#[derive(Debug, PartialEq)]
pub(crate) struct Layout {
    pub delimiter: u8,
    /// Whether the first row names the columns.
    pub header: bool,
    /// The column of texts.
    pub column: usize,
    /// Fields in each row.
    pub fields: usize,
}

impl Layout {
    /// The layout of an input that starts with `look`, and is no more than that if it is `complete`; `None` if there is no row.
    ///
    /// The first row is a header if it is not said otherwise, unless the column is given by number and no cell of the row is a
    /// usual name. Without a name the column is the one that is called text, content or body, else the one with most text.
    pub fn of(look: &[u8], complete: bool, path: &Path, options: &Reading) -> Result<Option<Layout>> {
        let delimiter = match options.delimiter {
            Some(byte @ (b'"' | b'\r' | b'\n')) => {
                return Err(Error::Invalid(format!("delimiter must not be a quote or a line end, got {:?}", char::from(byte))));
            }
            Some(byte) => byte,
            None if is_tsv(path) => b'\t',
            None => detect(look, complete),
        };
        let rows = first_rows(look, complete, delimiter);
        let Some(first) = rows.first() else {
            if complete {
                return Ok(None);
            }
            return Err(Error::Format(format!("{}: the first row does not end within {} bytes", path.display(), look.len())));
        };
        let usual = |cell: &Vec<u8>| TEXT_NAMES.iter().any(|name| cell.eq_ignore_ascii_case(name.as_bytes()));
        let number = options.text_field.as_deref().and_then(|name| name.parse::<usize>().ok());
        let header = options.header.unwrap_or(number.is_none() || first.iter().any(usual));
        let column = match (&options.text_field, number) {
            (_, Some(number)) if number < first.len() => number,
            (Some(name), _) => {
                let found = first.iter().position(|cell| header && cell == name.as_bytes());
                found.ok_or_else(|| no_column(path, name, first, header))?
            }
            (None, _) => {
                let named = TEXT_NAMES.iter().find_map(|name| first.iter().position(|cell| cell.eq_ignore_ascii_case(name.as_bytes())));
                named.filter(|_| header).unwrap_or_else(|| longest(&rows[usize::from(header)..], first.len()))
            }
        };
        Ok(Some(Layout { delimiter, header, column, fields: first.len() }))
    }
}

fn is_tsv(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().split('.').skip(1).any(|end| end == "tsv"))
}

fn no_column(path: &Path, name: &str, first: &[Vec<u8>], header: bool) -> Error {
    let names: Vec<String> =
        first.iter().take(20).map(|cell| format!("{:?}", String::from_utf8_lossy(cell).chars().take(40).collect::<String>())).collect();
    let what = if header { format!("columns are {}", names.join(", ")) } else { format!("{} columns without names", first.len()) };
    Error::Format(format!("{}: no column {name:?}; {what}; name one, or give its number from 0, with --text-field", path.display()))
}

/// The column with most text in these rows.
fn longest(rows: &[Vec<Vec<u8>>], fields: usize) -> usize {
    let bytes = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(Vec::len).sum::<usize>();
    (0..fields).rev().max_by_key(|column| bytes(*column)).unwrap_or(0)
}

/// The delimiter with which most of the first rows have as many fields as the first one, and of equals the one with most fields.
fn detect(look: &[u8], complete: bool) -> u8 {
    let score = |delimiter: u8| {
        let rows = first_rows(look, complete, delimiter);
        let fields = rows.first().map_or(0, Vec::len);
        let alike = rows.iter().filter(|row| row.len() == fields).count();
        if fields < 2 { (0, 0) } else { (1000 * alike / rows.len(), fields) }
    };
    DELIMITERS.into_iter().rev().max_by_key(|delimiter| score(*delimiter)).unwrap_or(b',')
}

/// The first rows, of those that are whole.
fn first_rows(look: &[u8], complete: bool, delimiter: u8) -> Vec<Vec<Vec<u8>>> {
    let mut input = Slice::new(look, 0);
    let (mut rows, mut row) = (Vec::new(), Vec::new());
    while rows.len() < LOOK_ROWS {
        if row.is_empty() {
            let blank = input.rest().iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            input.pass(blank);
            if input.rest().is_empty() {
                break;
            }
        }
        let mut cell = Vec::new();
        let by = field(&mut input, delimiter, &mut |bytes| {
            cell.extend_from_slice(bytes);
            Ok(())
        });
        row.push(cell);
        match by {
            Ok(End::Field) => {}
            Ok(End::Input | End::Unclosed) if !complete => break,
            _ => rows.push(std::mem::take(&mut row)),
        }
    }
    rows
}
