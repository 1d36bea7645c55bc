//! The head of a file in the archive (POSIX.1-2017, pax, "ustar Interchange Format").

/// Bytes of a block: heads are one, and contents are filled up with zeros to whole ones.
pub(crate) const BLOCK: usize = 512;
/// The longest name that a head holds.
const NAME_MAX: usize = 100;
/// The most bytes that a file in the archive can have: eleven octal digits.
pub const FILE_LENGTH_MAX: u64 = 0o777_7777_7777;

/// The head of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) length: u64,
    /// Seconds since 1970.
    pub(crate) modified: u64,
}

/// Whether a name may be in an archive: it leads nowhere but down, and every file system takes it.
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() <= NAME_MAX
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain))
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| {
            for (place, byte) in block.iter_mut().skip(at).zip(bytes) {
                *place = *byte;
            }
        };
        put(0, self.name.as_bytes());
        put(100, b"0000600\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", self.length.min(FILE_LENGTH_MAX)).as_bytes());
        put(136, format!("{:011o}\0", self.modified.min(FILE_LENGTH_MAX)).as_bytes());
        // The checksum is counted as if blanks stood in its place.
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        for (place, byte) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
            *place = byte;
        }
        block
    }

    /// Reads a head; nothing when it is none, or not as [`Header::encode`] writes it.
    pub(crate) fn decode(block: &[u8; BLOCK]) -> Option<Self> {
        let name = block[..NAME_MAX].split(|&byte| byte == 0).next()?;
        let name = String::from_utf8(name.to_vec()).ok().filter(|name| is_name(name))?;
        let number = |from: usize| {
            let digits = std::str::from_utf8(block.get(from..from + 11)?).ok()?;
            u64::from_str_radix(digits, 8).ok()
        };
        let header = Self { name, length: number(124)?, modified: number(136)? };
        (header.encode() == *block).then_some(header)
    }
}

/// Zeros behind a content of this length.
pub(crate) fn padding(length: u64) -> usize {
    usize::try_from(length.next_multiple_of(BLOCK as u64) - length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_down_only() {
        for good in ["a", "state/spool/log/0000000001.seg", "a.b-c_D"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(101);
        for bad in ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".a", "a b", "ä", "a\0", &long] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
