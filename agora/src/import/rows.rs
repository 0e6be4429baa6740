//! Reading one table of a dump: a file of `<row …/>` elements, as long as it likes, one row in memory at a time.
//!
//! Inside an attribute `<` cannot stand (XML 1.0, 2.3), so the next `<` always begins something new, whatever is wrong
//! with the row before it: a broken row is lost alone.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use quick_xml::{
    XmlVersion,
    events::attributes::{Attribute, Attributes},
};

/// The longest row that is read. Stack Exchange's own limit of a body is 30,000 characters, at most 6 bytes each here.
const ROW_BYTES: u64 = 4 * 1024 * 1024;

/// How much is read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// The rows of one table, in the file's order.
pub struct Rows {
    input: BufReader<File>,
    path: PathBuf,
    root: &'static str,
    /// Between two `<`, without them.
    piece: Vec<u8>,
    number: u64,
    bytes: u64,
    closed: bool,
}

/// One row: its attributes, still escaped.
pub struct Row<'a> {
    attributes: Vec<Attribute<'a>>,
}

/// Why a row was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRow(pub String);

impl Rows {
    /// Opens `dir/file`, whose root element must be `root`.
    ///
    /// # Errors
    /// Where it is not there, or is not such a table.
    pub fn open(dir: &Path, file: &str, root: &'static str) -> anyhow::Result<Self> {
        let path = dir.join(file);
        let opened = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let input = BufReader::with_capacity(BUFFER_BYTES, opened);
        let mut rows = Self { input, path, root, piece: Vec::new(), number: 0, bytes: 0, closed: false };
        rows.find_root()?;
        Ok(rows)
    }

    /// The number of the row read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How much of the file was read, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands the next row to `read`; `None` at the end of the table.
    ///
    /// # Errors
    /// The outer one where the file cannot be read, or ends before the table does; the inner one where this row cannot,
    /// and the next one may.
    pub fn next<T>(
        &mut self,
        read: impl FnOnce(&Row<'_>) -> Result<T, BadRow>,
    ) -> io::Result<Option<Result<T, BadRow>>> {
        loop {
            if !self.next_piece()? {
                if self.closed {
                    return Ok(None);
                }
                let cut_off = format!("it ends before </{}>: it was cut off, fetch it again", self.root);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut_off));
            }
            if self.piece.starts_with(b"/") && self.piece[1..].trim_ascii() == format!("{}>", self.root).as_bytes() {
                self.closed = true;
            }
            let is_row = self.piece.starts_with(b"row") && !self.piece.get(3).is_some_and(u8::is_ascii_alphanumeric);
            if is_row {
                self.number += 1;
                return Ok(Some(parse(&self.piece).and_then(|row| read(&row))));
            }
        }
    }

    fn find_root(&mut self) -> anyhow::Result<()> {
        let at = self.path.display().to_string();
        // What stands before the root element: a byte-order mark, the XML declaration, comments.
        for _ in 0..8 {
            if !self.next_piece().with_context(|| format!("cannot read {at}"))? {
                break;
            }
            if self.piece.starts_with(self.root.as_bytes()) {
                self.closed = self.piece.trim_ascii_end().ends_with(b"/>");
                return Ok(());
            }
            let prologue = self.piece.is_empty()
                || self.piece == b"\xef\xbb\xbf"
                || self.piece.starts_with(b"?")
                || self.piece.starts_with(b"!");
            if !prologue && !self.piece.trim_ascii().is_empty() {
                break;
            }
        }
        bail!("{at} is not a table of a Stack Exchange dump: it does not begin with <{}>", self.root)
    }

    /// Reads on behind the next `<`. A piece that is too long is passed over, and what is kept of it is no row.
    fn next_piece(&mut self) -> io::Result<bool> {
        self.piece.clear();
        let read = (&mut self.input).take(ROW_BYTES).read_until(b'<', &mut self.piece)?;
        self.bytes += read as u64;
        if self.piece.last() == Some(&b'<') {
            self.piece.pop();
        } else if read as u64 == ROW_BYTES {
            self.bytes += self.input.skip_until(b'<')? as u64;
        }
        Ok(read > 0)
    }
}

impl Row<'_> {
    /// An attribute's text; `None` where the row has no such attribute.
    ///
    /// # Errors
    /// Where the text is not well-formed.
    pub fn text(&self, name: &str) -> Result<Option<String>, BadRow> {
        let Some(attribute) = self.attributes.iter().find(|attribute| attribute.key.as_ref() == name) else {
            return Ok(None);
        };
        let text = attribute.normalized_value(XmlVersion::Implicit1_0);
        let text = text.map_err(|error| BadRow(format!("{name}: {error}")))?;
        if text.contains('\0') {
            return Err(BadRow(format!("{name} holds a NUL character")));
        }
        Ok(Some(text.into_owned()))
    }
}

/// A whole element, and nothing else, of a piece that begins behind its `<`. Every attribute is walked through, so
/// that a row that is broken anywhere is broken as a whole.
fn parse(piece: &[u8]) -> Result<Row<'_>, BadRow> {
    if piece.len() as u64 >= ROW_BYTES {
        return Err(BadRow(format!("it is longer than {} MiB", ROW_BYTES >> 20)));
    }
    let text = std::str::from_utf8(piece).map_err(|error| BadRow(format!("it is not UTF-8: {error}")))?;
    let content = text.trim_end();
    let content = content.strip_suffix('>').ok_or_else(|| BadRow("it does not end in />".to_owned()))?;
    let content = content.strip_suffix('/').unwrap_or(content);
    let attributes = Attributes::new(content, "row".len()).collect::<Result<_, _>>();
    let attributes = attributes.map_err(|error| BadRow(format!("it is not well-formed: {error}")))?;
    Ok(Row { attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reading the column `Id` of each row gives, with the row's number.
    fn ids(content: &[u8]) -> Vec<(u64, Result<Option<String>, String>)> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("Posts.xml"), content).expect("written");
        let mut rows = Rows::open(dir.path(), "Posts.xml", "posts").expect("a table");
        let mut found = Vec::new();
        while let Some(row) = rows.next(|row| row.text("Id")).expect("read") {
            found.push((rows.number(), row.map_err(|bad| bad.0)));
        }
        assert_eq!(rows.bytes(), content.len() as u64);
        found
    }

    fn table(rows: &str) -> Vec<u8> {
        format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<posts>\r\n{rows}</posts>").into_bytes()
    }

    #[allow(clippy::unnecessary_wraps, reason = "as reading gives it")]
    fn id(id: &str) -> Result<Option<String>, String> {
        Ok(Some(id.to_owned()))
    }

    #[test]
    fn rows_are_read_with_their_escapes() {
        let found = ids(&table("  <row Id=\"1 &lt;&amp;&#xA;é\" Other=\"a > b\" />\r\n  <row Other='' />\r\n"));
        assert_eq!(found, [(1, id("1 <&\né")), (2, Ok(None))]);
    }

    #[test]
    fn a_broken_row_is_lost_alone() {
        let broken = [
            "<row Id=\"2 />",
            "<row Id=\"2 Body=\"quotes out of step\" />",
            "<row Id=\"2\" Body=\"<p>not escaped</p>\" />",
            "<row Id=2 />",
            "<row Id=\"2\" Id=\"2\" />",
            "<row Id=\"&nonsense;\" />",
            "<row Id=\"&#0;\" />",
            "<row Id=\"2\"",
        ];
        for row in broken {
            let found = ids(&table(&format!("<row Id=\"1\" />\n{row}\n<row Id=\"3\" />\n")));
            assert_eq!(found[0], (1, id("1")));
            assert!(found[1].1.is_err(), "{row}: {found:?}");
            assert_eq!(found[2..], [(3, id("3"))], "{row}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_a_broken_row() {
        let mut content = table("<row Id=\"1?\" />\n<row Id=\"2\" />\n");
        let at = content.iter().rposition(|byte| *byte == b'?').expect("it is there");
        content[at] = 0xff;
        let found = ids(&content);
        assert!(found[0].1.as_ref().is_err_and(|reason| reason.contains("UTF-8")), "{found:?}");
        assert_eq!(found[1], (2, id("2")));
    }

    #[test]
    fn a_row_without_end_does_not_fill_the_memory() {
        let endless = "x".repeat(usize::try_from(ROW_BYTES).expect("it fits") * 2);
        let found = ids(&table(&format!("<row Id=\"{endless}\" />\n<row Id=\"2\" />\n")));
        assert_eq!(found[0].1, Err("it is longer than 4 MiB".to_owned()));
        assert_eq!(found[1], (2, id("2")));
    }

    #[test]
    fn a_file_that_was_cut_off_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("Posts.xml"), b"<posts>\n<row Id=\"1\" />\n<row Id=\"2\" Bo").expect("written");
        let mut rows = Rows::open(dir.path(), "Posts.xml", "posts").expect("a table");
        let mut next = || rows.next(|_| Ok(()));
        assert!(matches!(next(), Ok(Some(Ok(())))));
        assert!(matches!(next(), Ok(Some(Err(_)))));
        assert!(next().expect_err("the end is missing").to_string().contains("</posts>: it was cut off"));
        assert_eq!(ids(b"<posts />"), []);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        for content in [&b""[..], b"7z\xbc\xaf\x27\x1c", b"<html><posts>", b"<?xml version=\"1.0\"?><users>", b"{}"] {
            std::fs::write(dir.path().join("Posts.xml"), content).expect("written");
            let refusal = Rows::open(dir.path(), "Posts.xml", "posts").map(|_| ()).expect_err("refused");
            assert!(refusal.to_string().ends_with("it does not begin with <posts>"), "{refusal:#}");
        }
    }
}
