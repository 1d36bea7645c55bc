//! What is written behind a program that was put into a folder: that it is ours, and what it is to ask.
//!
//! The loader does not look behind the last section of an executable, so the program stays the same
//! program. Nobody else's file ends like this, which is how ours are told from others.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const HEAD: &str = "\nlamppost-compat 1\n";
const END: &str = "end of lamppost-compat\n";
/// Bytes at the end of a file that are searched for a stamp.
const SEARCHED_MAX: u64 = 16 * 1024;

/// What a program of ours was told when it was put where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The version that it came with.
    pub version: String,
    /// The socket that takes mail of local users, if there is one.
    pub socket: Option<PathBuf>,
    /// Where the greylist is asked, if it is: a socket's path, or an address and a port.
    pub greylist: Option<PathBuf>,
    /// The main program.
    pub program: PathBuf,
    /// The configuration file, if it was named.
    pub config: Option<PathBuf>,
    /// The state folder, if it was named.
    pub state: Option<PathBuf>,
}

impl Stamp {
    /// The bytes to write behind a program.
    ///
    /// # Errors
    /// When a path holds a line end or is no text.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut text = format!("{HEAD}version={}\n", self.version);
        let paths = [
            ("socket", self.socket.as_ref()),
            ("greylist", self.greylist.as_ref()),
            ("program", Some(&self.program)),
            ("config", self.config.as_ref()),
            ("state", self.state.as_ref()),
        ];
        for (key, path) in paths {
            let Some(path) = path else { continue };
            match path.to_str() {
                Some(path) if !path.contains('\n') => text.extend([key, "=", path, "\n"]),
                _ => {
                    let what = format!("the path {} is not plain text", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
                }
            }
        }
        text.push_str(END);
        Ok(text.into_bytes())
    }

    /// The stamp of a file; nothing when it has none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(SEARCHED_MAX)))?;
        let mut end = Vec::new();
        file.take(SEARCHED_MAX).read_to_end(&mut end)?;
        Ok(Self::parse(&end))
    }

    fn parse(end: &[u8]) -> Option<Self> {
        let body = end.strip_suffix(END.as_bytes())?;
        let head = HEAD.as_bytes();
        let at = body.windows(head.len()).rposition(|window| window == head)?;
        let mut stamp = Self::default();
        for line in std::str::from_utf8(&body[at + head.len()..]).ok()?.lines() {
            let (key, value) = line.split_once('=')?;
            match key {
                "version" => value.clone_into(&mut stamp.version),
                "socket" => stamp.socket = Some(value.into()),
                "greylist" => stamp.greylist = Some(value.into()),
                "program" => stamp.program = value.into(),
                "config" => stamp.config = Some(value.into()),
                "state" => stamp.state = Some(value.into()),
                // A newer program's.
                _ => {}
            }
        }
        Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            version: "1.2.3".into(),
            socket: Some("/run/lamppost/submit.sock".into()),
            greylist: Some("127.0.0.1:10023".into()),
            program: "/usr/bin/lamppost".into(),
            config: Some("/etc/a=b.toml".into()),
            state: None,
        }
    }

    #[test]
    fn a_stamp_is_read_back_from_the_end_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sendmail");
        let program = vec![b'x'; 100_000];
        std::fs::write(&path, [program.clone(), stamp().to_bytes().unwrap()].concat()).unwrap();
        assert_eq!(Stamp::of(&path).unwrap(), Some(stamp()));
        std::fs::write(&path, &program).unwrap();
        assert_eq!(Stamp::of(&path).unwrap(), None);
        // Text that speaks of a stamp is none.
        let inside = [stamp().to_bytes().unwrap(), b"more".to_vec()].concat();
        std::fs::write(&path, inside).unwrap();
        assert_eq!(Stamp::of(&path).unwrap(), None);
    }

    proptest! {
        #[test]
        fn stamps_are_read_back_and_others_are_none(
            before: Vec<u8>, socket in "/[^\n\r\0]{0,20}", end in "[a-z=\n]{0,20}"
        ) {
            let stamp = Stamp { socket: Some(socket.into()), ..stamp() };
            let bytes = [before.clone(), stamp.to_bytes().unwrap()].concat();
            prop_assert_eq!(Stamp::parse(&bytes), Some(stamp));
            prop_assert_eq!(Stamp::parse(&before), None);
            drop(Stamp::parse(format!("{HEAD}{end}{END}").as_bytes()));
        }
    }

    #[test]
    fn a_path_with_a_line_end_is_refused() {
        let stamp = Stamp { socket: Some("/run/a\nb".into()), ..stamp() };
        assert!(stamp.to_bytes().is_err());
    }
}
