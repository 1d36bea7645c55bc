//! Writing an archive.

use std::io::{self, Read, Write};

use crate::header::{BLOCK, FILE_LENGTH_MAX, Header, is_name, padding};
use crate::manifest::{Counted, sum_line};
use crate::{FORMAT, FORMAT_NAME, FORMAT_WORDS, FileSum, MANIFEST_NAME, Manifest, SUM_NAME};

/// An archive that is being written: files one after the other, their lengths known beforehand.
pub struct Writer<W> {
    out: W,
    created_s: u64,
    files: Vec<FileSum>,
    open: Option<Counted>,
}

impl<W: Write> Writer<W> {
    /// Begins an archive, at this time in seconds since 1970.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(out: W, created_s: u64) -> io::Result<Self> {
        let mut writer = Self { out, created_s, files: Vec::new(), open: None };
        writer.whole(FORMAT_NAME, format!("{FORMAT_WORDS}{FORMAT}\n").as_bytes())?;
        Ok(writer)
    }

    /// Begins a file; all of its bytes must be [`Writer::put`] before the next.
    ///
    /// # Errors
    /// When its name or length is not for archives, the one before is not complete, or it cannot be
    /// written.
    pub fn file(&mut self, name: &str, length: u64) -> io::Result<()> {
        let is_taken = [FORMAT_NAME, MANIFEST_NAME, SUM_NAME].contains(&name);
        if !is_name(name) || is_taken || length > FILE_LENGTH_MAX {
            let what = format!("{name} with {length} bytes cannot be in a backup");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.complete()?;
        self.head(name, length)?;
        self.open = Some(Counted::new(name, length));
        Ok(())
    }

    /// The next bytes of the file that was begun last.
    ///
    /// # Errors
    /// When they are too many, or cannot be written.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|open| open.left >= bytes.len() as u64) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file became longer"));
        };
        open.take(bytes);
        self.out.write_all(bytes)
    }

    /// A file whose content is read to its length; what is behind it is left out.
    ///
    /// # Errors
    /// When it cannot be read, is shorter than that, or cannot be written.
    pub fn copy(&mut self, name: &str, length: u64, content: impl Read) -> io::Result<()> {
        /// Bytes that are copied at once.
        const PIECE: usize = 128 * 1024;
        self.file(name, length)?;
        let mut content = content.take(length);
        let mut piece = vec![0; PIECE];
        loop {
            match content.read(&mut piece) {
                Ok(0) => return self.complete(),
                Ok(count) => self.put(&piece[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the archive with its manifest; `about` says all but its files and its time.
    ///
    /// # Errors
    /// When the last file is not complete, or it cannot be written.
    pub fn finish(mut self, about: Manifest) -> io::Result<(W, Manifest)> {
        self.complete()?;
        let files = std::mem::take(&mut self.files);
        let manifest = Manifest { created_s: self.created_s, files, ..about };
        let mut text = serde_json::to_vec(&manifest).map_err(io::Error::other)?;
        text.push(b'\n');
        self.whole(MANIFEST_NAME, &text)?;
        self.whole(SUM_NAME, sum_line(&text).as_bytes())?;
        self.out.write_all(&[0; BLOCK * 2])?;
        self.out.flush()?;
        Ok((self.out, manifest))
    }

    /// Ends the file that was begun last.
    fn complete(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.left > 0 {
            let what = format!("{} became shorter", open.name);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let sum = open.finish();
        self.pad(sum.length)?;
        self.files.push(sum);
        Ok(())
    }

    fn whole(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.head(name, content.len() as u64)?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn head(&mut self, name: &str, length: u64) -> io::Result<()> {
        let header = Header { name: name.to_owned(), length, modified: self.created_s };
        self.out.write_all(&header.encode())
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        self.out.write_all(&[0; BLOCK][..padding(length)])
    }
}
