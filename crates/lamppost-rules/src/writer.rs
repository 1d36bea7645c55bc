//! Writing a cdb: the bytes that `cdb_make.c` writes for the same records in the same order.

use crate::cdb::{HEADER_BYTES, hash};

/// The records are more than fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rules become larger than {max} bytes")]
pub struct TooLarge {
    /// Bytes that they may have.
    pub max: u32,
}

/// A cdb on its way.
#[derive(Debug)]
pub struct CdbWriter {
    bytes: Vec<u8>,
    /// The hash of each record's key and its place.
    records: Vec<(u32, u32)>,
    max: u32,
}

impl CdbWriter {
    /// An empty cdb that may grow to `max` bytes; the format itself ends at 4 GiB.
    pub fn new(max: u32) -> Self {
        Self { bytes: vec![0; HEADER_BYTES], records: Vec::new(), max }
    }

    /// Adds a record. A key may come again: the first record is found.
    ///
    /// # Errors
    /// When it does not fit any more.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), TooLarge> {
        let at = self.position()?;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| self.too_large());
        let lengths = [length(key)?.to_le_bytes(), length(value)?.to_le_bytes()].concat();
        if self.bytes.len() + lengths.len() + key.len() + value.len() > self.max as usize {
            return Err(self.too_large());
        }
        for part in [&lengths, key, value] {
            self.bytes.extend_from_slice(part);
        }
        self.records.push((hash(key), at));
        Ok(())
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// The whole cdb.
    ///
    /// # Errors
    /// When its tables do not fit any more.
    pub fn finish(mut self) -> Result<Vec<u8>, TooLarge> {
        let mut tables = vec![Vec::new(); 256];
        for &(hash, at) in &self.records {
            tables[(hash & 255) as usize].push((hash, at));
        }
        for (number, records) in tables.into_iter().enumerate() {
            // Twice as many places as records, so that a search ends soon at an empty one.
            let mut places = vec![(0_u32, 0_u32); records.len() * 2];
            let count = u32::try_from(places.len()).map_err(|_| self.too_large())?;
            for (hash, at) in records {
                let mut place = ((hash >> 8) % count) as usize;
                while places[place].1 != 0 {
                    place = (place + 1) % places.len();
                }
                places[place] = (hash, at);
            }
            let entry = [self.position()?.to_le_bytes(), count.to_le_bytes()].concat();
            self.bytes[number * 8..][..8].copy_from_slice(&entry);
            for (hash, at) in places {
                self.bytes.extend_from_slice(&hash.to_le_bytes());
                self.bytes.extend_from_slice(&at.to_le_bytes());
            }
        }
        self.position()?;
        Ok(self.bytes)
    }

    /// Where what comes next will be.
    fn position(&self) -> Result<u32, TooLarge> {
        let at = u32::try_from(self.bytes.len()).ok().filter(|at| *at <= self.max);
        at.ok_or_else(|| self.too_large())
    }

    fn too_large(&self) -> TooLarge {
        TooLarge { max: self.max }
    }
}
