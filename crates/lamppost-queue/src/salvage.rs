//! Reading what a failing disk still gives.

use std::io;
use std::path::Path;

use lamppost_disk::Disk;
use rustix::io::Errno;

/// What was read of a file, and what the disk did not give.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// What the disk did not give is zero.
    pub(crate) bytes: Vec<u8>,
    /// The parts that the disk did not give: where they begin, and their lengths.
    pub(crate) holes: Vec<(u64, u64)>,
    /// What the system said of the first of them.
    pub(crate) fault: Option<String>,
    /// Where in the file the bytes begin.
    offset: u64,
}

/// Whether the disk, or the file system on it, does not give what is there: trying again is of no
/// use, and what lies around it may be whole. Other errors are for an administrator to mend.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    [Errno::IO, Errno::BADMSG, Errno::UCLEAN].iter().any(|one| Some(one.raw_os_error()) == errno)
}

/// Reads at most `length_max` bytes of a file from `offset` on, around what the disk does not give.
///
/// # Errors
/// What the system says, unless it is that the disk does not give them.
pub(crate) fn read(
    disk: &dyn Disk,
    path: &Path,
    offset: u64,
    length_max: usize,
) -> io::Result<Salvaged> {
    /// Bytes that are read at once where the disk gives them.
    const STRETCH: usize = 1024 * 1024;
    /// Bytes that are given up where it does not.
    const BLOCK: usize = 4096;
    let error = match disk.read(path, offset, length_max) {
        Ok(bytes) => return Ok(Salvaged { bytes, ..Salvaged::default() }),
        Err(error) if is_unreadable(&error) => error,
        Err(error) => return Err(error),
    };
    let mut salvaged = Salvaged { offset, fault: Some(error.to_string()), ..Salvaged::default() };
    let length = match disk.look(path) {
        Ok(look) => look.map_or(0, |look| look.length).saturating_sub(offset),
        Err(error) if is_unreadable(&error) => 0,
        Err(error) => return Err(error),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(length_max);
    while salvaged.bytes.len() < length {
        let left = length - salvaged.bytes.len();
        if salvaged.take(disk, path, left.min(STRETCH))? {
            continue;
        }
        let end = length - left + left.min(STRETCH);
        while salvaged.bytes.len() < end {
            // A stretch may have given its beginning.
            let block = BLOCK.min(end - salvaged.bytes.len());
            if !salvaged.take(disk, path, block)? {
                salvaged.skip(BLOCK.min(end.saturating_sub(salvaged.bytes.len())));
            }
        }
    }
    Ok(salvaged)
}

impl Salvaged {
    /// Reads on; false when the disk does not give all of it.
    fn take(&mut self, disk: &dyn Disk, path: &Path, length: usize) -> io::Result<bool> {
        match disk.read(path, self.offset + self.bytes.len() as u64, length) {
            Ok(bytes) => {
                self.bytes.extend_from_slice(&bytes);
                // A file that has become shorter is read to its end, and what is lacking is a hole.
                Ok(bytes.len() == length)
            }
            Err(error) if is_unreadable(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn skip(&mut self, length: usize) {
        let at = self.offset + self.bytes.len() as u64;
        match self.holes.last_mut() {
            Some((from, known)) if *from + *known == at => *known += length as u64,
            _ => self.holes.push((at, length as u64)),
        }
        self.bytes.resize(self.bytes.len() + length, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use lamppost_sim::SimulatedDisk;

    use super::*;

    #[test]
    fn what_lies_around_bad_blocks_is_read() {
        let path = Path::new("/folder/file");
        let disk = SimulatedDisk::new(Path::new("/folder"));
        let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        disk.create(path).unwrap().write_at(0, &mut [IoSlice::new(&content)]).unwrap();
        let whole = read(&disk, path, 0, usize::MAX).unwrap();
        assert_eq!((&whole.bytes, whole.holes.len(), whole.fault), (&content, 0, None));
        for (from, length) in [(5000, 1), (1_500_000, 5000), (2_999_999, 1)] {
            disk.spoil(path, from, length);
        }
        let read = read(&disk, path, 0, usize::MAX).unwrap();
        assert_eq!(read.holes.len(), 3, "{:?}", read.holes);
        assert!(read.fault.is_some());
        let mut expected = content;
        for (from, length) in read.holes {
            assert!(length <= 8192, "{length}");
            let from = usize::try_from(from).unwrap();
            expected[from..from + usize::try_from(length).unwrap()].fill(0);
        }
        assert_eq!(read.bytes, expected);
    }

    #[test]
    fn other_errors_are_told() {
        let disk = SimulatedDisk::new(Path::new("/folder"));
        let error = read(&disk, Path::new("/folder/file"), 0, 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!is_unreadable(&io::Error::from_raw_os_error(Errno::ACCESS.raw_os_error())));
    }
}
