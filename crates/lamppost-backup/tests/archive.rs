//! What is written is read back, and what is not whole is refused, whatever was done to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

use std::io;

use lamppost_backup::{ArchiveError, Manifest, Nowhere, Sink, Writer, read};
use proptest::prelude::*;

type Files = Vec<(String, Vec<u8>)>;

/// Keeps what is read.
#[derive(Default)]
struct Kept(Files);

impl Sink for Kept {
    fn file(&mut self, name: &str, _: u64) -> io::Result<()> {
        self.0.push((name.to_owned(), Vec::new()));
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.last_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }
}

fn about() -> Manifest {
    Manifest { program: "1".into(), host: "h.test".into(), messages: 3, ..Manifest::default() }
}

fn written(files: &Files) -> (Vec<u8>, Manifest) {
    let mut writer = Writer::begin(Vec::new(), 1_800_000_000).unwrap();
    for (name, content) in files {
        writer.copy(name, content.len() as u64, &content[..]).unwrap();
    }
    writer.finish(about()).unwrap()
}

fn files() -> Files {
    vec![("lamppost.toml".into(), b"[mail]\n".to_vec()), ("state/a".into(), vec![7; 700])]
}

#[test]
fn no_bit_and_no_byte_can_be_changed_or_lost() {
    let (whole, _) = written(&files());
    read(&whole[..], &mut Nowhere).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes[..], &mut Nowhere).is_err(), "byte {at}, bit {bit}");
        }
        let cut = read(&whole[..at], &mut Nowhere).unwrap_err();
        let is_told = matches!(cut, ArchiveError::CutOff { .. } | ArchiveError::NotABackup);
        assert!(is_told, "{at}: {cut}");
    }
    let longer = [&whole[..], b"x"].concat();
    assert!(read(&longer[..], &mut Nowhere).is_err());
}

#[test]
fn what_is_wrong_is_told_in_words() {
    let told = |bytes: &[u8]| read(bytes, &mut Nowhere).unwrap_err().to_string();
    let (whole, _) = written(&files());
    let place = |word: &[u8]| whole.windows(word.len()).position(|at| at == word).unwrap();
    let mut flipped = whole.clone();
    flipped[place(b"[mail]")] ^= 1;
    assert_eq!(told(&flipped), "it is damaged: lamppost.toml is not what the manifest says");
    assert_eq!(told(&whole[..place(b"[mail]") + 3]), "it is cut off: it ends in lamppost.toml");
    assert_eq!(told(b"[mail]\n"), "it is no backup of lamppost, or its beginning is damaged");
    let mut newer = whole.clone();
    newer[place(b"lamppost backup 1") + 16] = b'2';
    let expected = "it has format 2, and this program knows 1: use a newer version";
    assert_eq!(told(&newer), expected);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let mut writer = Writer::begin(Vec::new(), 0).unwrap();
    assert!(writer.copy("a", 5, &b"four"[..]).is_err());
    let mut writer = Writer::begin(Vec::new(), 0).unwrap();
    writer.file("a", 3).unwrap();
    assert!(writer.put(b"four").is_err());
    assert!(writer.file("../a", 3).is_err());
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..6)) {
        let files: Files = contents.into_iter().enumerate().map(|(at, one)| (format!("d{at}/f"), one)).collect();
        let (bytes, manifest) = written(&files);
        let mut kept = Kept::default();
        prop_assert_eq!(read(&bytes[..], &mut kept).unwrap(), manifest);
        prop_assert_eq!(kept.0, files);
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        prop_assert!(read(&bytes[..], &mut Nowhere).is_err());
    }

    /// Behind a good beginning the reader comes further.
    #[test]
    fn any_changes_are_refused(changes in prop::collection::vec((0_usize..6000, any::<u8>()), 1..20)) {
        let (whole, _) = written(&files());
        let mut bytes = whole.clone();
        for (at, byte) in changes {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        prop_assert_eq!(read(&bytes[..], &mut Nowhere).is_ok(), bytes == whole);
    }
}
