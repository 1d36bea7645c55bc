//! Reading an archive, and holding it to what it says of itself.

use std::collections::BTreeSet;
use std::io::{self, Read};

use crate::header::{BLOCK, Header, padding};
use crate::manifest::{Counted, sum_line};
use crate::{FORMAT, FORMAT_NAME, FORMAT_WORDS, FileSum, MANIFEST_NAME, Manifest, SUM_NAME};

/// Bytes that are read at once.
const PIECE: usize = 128 * 1024;
/// The largest of the files that frame an archive.
const FRAME_MAX: u64 = 256 * 1024 * 1024;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system cannot read it.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It does not begin as backups do.
    #[error("it is no backup of lamppost, or its beginning is damaged")]
    NotABackup,
    /// Only a newer program knows its format.
    #[error("it has format {found}, and this program knows {FORMAT}: use a newer version")]
    Newer {
        /// Its format.
        found: u64,
    },
    /// It ends before its end.
    #[error("it is cut off: it ends {place}")]
    CutOff {
        /// Where.
        place: String,
    },
    /// It is not as it was written.
    #[error("it is damaged: {what}")]
    Damaged {
        /// What shows that.
        what: String,
    },
    /// What is in it cannot be put where it is to go.
    #[error("cannot write {name}")]
    Put {
        /// The file's name in the archive.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where the files of an archive go as they are read; what becomes of them is not known to be right
/// before [`read`] returns.
pub trait Sink {
    /// A file begins.
    ///
    /// # Errors
    /// When it cannot be made.
    fn file(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Its next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Files that are only looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Sink for Nowhere {
    fn file(&mut self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn put(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an archive to its end; returns its manifest once everything is as it says.
///
/// # Errors
/// When anything in it is not as it was written, or `sink` fails.
pub fn read(input: impl Read, sink: &mut impl Sink) -> Result<Manifest, ArchiveError> {
    let mut archive = Archive { input, piece: vec![0; PIECE] };
    archive.format()?;
    let mut files = Vec::new();
    let mut names = BTreeSet::new();
    loop {
        let Header { name, length, .. } = archive.header()?;
        if name == MANIFEST_NAME {
            return archive.end(length, &files);
        }
        if [FORMAT_NAME, SUM_NAME].contains(&&*name) || !names.insert(name.clone()) {
            return Err(damaged(format!("{name} is in it twice, or in the wrong place")));
        }
        files.push(archive.file(&name, length, sink)?);
    }
}

struct Archive<R> {
    input: R,
    piece: Vec<u8>,
}

impl<R: Read> Archive<R> {
    /// The first file: which format this is.
    fn format(&mut self) -> Result<(), ArchiveError> {
        let header = match self.header() {
            Err(ArchiveError::Read(error)) => return Err(ArchiveError::Read(error)),
            Ok(header) if header.name == FORMAT_NAME && header.length <= 64 => header,
            _ => return Err(ArchiveError::NotABackup),
        };
        let content = self.whole(FORMAT_NAME, header.length)?;
        let number = std::str::from_utf8(&content)
            .ok()
            .and_then(|text| text.strip_prefix(FORMAT_WORDS)?.strip_suffix('\n'));
        let number = number.and_then(|number| number.parse().ok());
        match number {
            Some(found) if found > FORMAT => Err(ArchiveError::Newer { found }),
            // Its own way to write a number only: a sign or a zero before it is damage.
            Some(found) if content == format!("{FORMAT_WORDS}{found}\n").as_bytes() => {
                if found == FORMAT { Ok(()) } else { Err(ArchiveError::NotABackup) }
            }
            _ => Err(ArchiveError::NotABackup),
        }
    }

    fn header(&mut self) -> Result<Header, ArchiveError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block, || "between two files".into())?;
        Header::decode(&block).ok_or_else(|| damaged("the head of a file is wrong".into()))
    }

    /// Passes a file on.
    fn file(
        &mut self,
        name: &str,
        length: u64,
        sink: &mut impl Sink,
    ) -> Result<FileSum, ArchiveError> {
        let put = |source| ArchiveError::Put { name: name.to_owned(), source };
        sink.file(name, length).map_err(put)?;
        let mut counted = Counted::new(name, length);
        let mut piece = std::mem::take(&mut self.piece);
        while counted.left > 0 {
            let count = usize::try_from(counted.left).unwrap_or(PIECE).min(PIECE);
            self.fill(&mut piece[..count], || format!("in {name}"))?;
            counted.take(&piece[..count]);
            sink.put(&piece[..count]).map_err(put)?;
        }
        self.piece = piece;
        self.skip_padding(name, length)?;
        Ok(counted.finish())
    }

    /// A file that frames the archive.
    fn whole(&mut self, name: &str, length: u64) -> Result<Vec<u8>, ArchiveError> {
        if length > FRAME_MAX {
            return Err(damaged(format!("{name} is too long")));
        }
        // Memory is taken for what is there, not for what is said to be.
        let mut content = Vec::new();
        let read = (&mut self.input).take(length).read_to_end(&mut content);
        read.map_err(ArchiveError::Read)?;
        if (content.len() as u64) < length {
            return Err(ArchiveError::CutOff { place: format!("in {name}") });
        }
        self.skip_padding(name, length)?;
        Ok(content)
    }

    /// The manifest and what is behind it.
    fn end(&mut self, length: u64, files: &[FileSum]) -> Result<Manifest, ArchiveError> {
        let text = self.whole(MANIFEST_NAME, length)?;
        let header = self.header()?;
        if header.name != SUM_NAME
            || self.whole(SUM_NAME, header.length)? != sum_line(&text).as_bytes()
        {
            return Err(damaged("the manifest's checksum is wrong".into()));
        }
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("the manifest is wrong: {error}")))?;
        if let Some((found, _)) = files.iter().zip(&manifest.files).find(|(one, two)| one != two) {
            return Err(damaged(format!("{} is not what the manifest says", found.name)));
        }
        if files.len() != manifest.files.len() {
            return Err(damaged("it holds other files than the manifest names".into()));
        }
        let mut rest = [0; BLOCK * 2];
        self.fill(&mut rest, || "behind the manifest".into())?;
        let behind = self.input.read(&mut self.piece).map_err(ArchiveError::Read)?;
        if rest != [0; BLOCK * 2] || behind > 0 {
            return Err(damaged("something is behind its end".into()));
        }
        Ok(manifest)
    }

    fn skip_padding(&mut self, name: &str, length: u64) -> Result<(), ArchiveError> {
        let mut zeros = [0; BLOCK];
        let zeros = &mut zeros[..padding(length)];
        self.fill(zeros, || format!("behind {name}"))?;
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(damaged(format!("something is behind {name}")));
        }
        Ok(())
    }

    fn fill(
        &mut self,
        bytes: &mut [u8],
        place: impl FnOnce() -> String,
    ) -> Result<(), ArchiveError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::CutOff { place: place() },
            _ => ArchiveError::Read(error),
        })
    }
}

fn damaged(what: String) -> ArchiveError {
    ArchiveError::Damaged { what }
}
