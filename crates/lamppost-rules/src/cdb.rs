//! Reading a cdb, D. J. Bernstein's constant database (<https://cr.yp.to/cdb/cdb.txt>), out of bytes that
//! may be anything: what lies outside of them is an error, and no search is longer than they are.

/// Bytes of the table of tables at the beginning.
pub(crate) const HEADER_BYTES: usize = 2048;
/// Bytes of a place in a table, and of the lengths before a record.
const PAIR_BYTES: u64 = 8;

/// The bytes are no whole cdb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no whole cdb: what should be at byte {at} is not there")]
pub struct Damaged {
    /// Where something should be.
    pub at: u64,
}

/// A cdb.
#[derive(Clone, Copy, Debug)]
pub struct Cdb<'b>(&'b [u8]);

/// The hash that places a key.
pub(crate) fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381_u32, |hash, &byte| hash.wrapping_mul(33) ^ u32::from(byte))
}

/// One of the 256 tables of places.
#[derive(Clone, Copy)]
struct Table {
    at: u64,
    places: u32,
}

impl<'b> Cdb<'b> {
    /// A cdb in these bytes; whether they are one shows when they are read.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// The first record of a key.
    ///
    /// # Errors
    /// When something that the search comes to is not there.
    pub fn find(&self, key: &[u8]) -> Result<Option<&'b [u8]>, Damaged> {
        let hash = hash(key);
        let table = self.table(hash & 255)?;
        if table.places == 0 {
            return Ok(None);
        }
        let first = (hash >> 8) % table.places;
        // A table cannot have more places than bytes: the first that lies outside ends the search.
        for place in (first..table.places).chain(0..first) {
            let (found, record) = self.pair(table.at + PAIR_BYTES * u64::from(place))?;
            if record == 0 {
                return Ok(None);
            }
            if found == hash
                && let Some(value) = self.value(record, key)?
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Looks at every table and every record.
    ///
    /// # Errors
    /// When any search could come to something that is not there.
    pub fn check(&self) -> Result<(), Damaged> {
        self.look_through(|_| ())
    }

    /// As [`Self::check`], and sees every key.
    pub(crate) fn look_through(&self, mut see: impl FnMut(&'b [u8])) -> Result<(), Damaged> {
        let mut places_left = self.0.len() as u64 / PAIR_BYTES;
        for number in 0..256 {
            let table = self.table(number)?;
            // Tables do not overlap, so that the look ends soon whatever they say.
            let is_too_many = Damaged { at: table.at };
            places_left = places_left.checked_sub(table.places.into()).ok_or(is_too_many)?;
            for place in 0..table.places {
                let (_, record) = self.pair(table.at + PAIR_BYTES * u64::from(place))?;
                if record != 0 {
                    see(self.key(record)?);
                }
            }
        }
        Ok(())
    }

    fn table(&self, number: u32) -> Result<Table, Damaged> {
        let (at, places) = self.pair(PAIR_BYTES * u64::from(number))?;
        Ok(Table { at: at.into(), places })
    }

    /// What a record at a place holds, if it is the key's.
    fn value(&self, record: u32, key: &[u8]) -> Result<Option<&'b [u8]>, Damaged> {
        let at = u64::from(record);
        let (length, value) = self.pair(at)?;
        if length as usize != key.len() {
            return Ok(None);
        }
        if self.bytes(at + PAIR_BYTES, length.into())? != key {
            return Ok(None);
        }
        self.bytes(at + PAIR_BYTES + u64::from(length), value.into()).map(Some)
    }

    /// The key of a record that is there as a whole.
    fn key(&self, record: u32) -> Result<&'b [u8], Damaged> {
        let at = u64::from(record);
        let (key, value) = self.pair(at)?;
        self.bytes(at + PAIR_BYTES, u64::from(key) + u64::from(value))?;
        self.bytes(at + PAIR_BYTES, key.into())
    }

    fn pair(&self, at: u64) -> Result<(u32, u32), Damaged> {
        let bytes = self.bytes(at, PAIR_BYTES)?;
        let (first, second) = bytes.split_first_chunk().ok_or(Damaged { at })?;
        let second = second.try_into().map_err(|_| Damaged { at })?;
        Ok((u32::from_le_bytes(*first), u32::from_le_bytes(second)))
    }

    fn bytes(&self, at: u64, length: u64) -> Result<&'b [u8], Damaged> {
        let range = usize::try_from(at).ok().zip(usize::try_from(at + length).ok());
        range.and_then(|(begin, end)| self.0.get(begin..end)).ok_or(Damaged { at })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::CdbWriter;

    fn made(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut writer = CdbWriter::new(u32::MAX);
        for (key, value) in records {
            writer.add(key, value).unwrap();
        }
        writer.finish().unwrap()
    }

    fn record() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        // Few letters, so that keys come twice.
        ("[ab]{0,3}", "[a-z\0]{0,5}").prop_map(|(key, value)| (key.into(), value.into()))
    }

    proptest! {
        #[test]
        fn what_was_written_is_found(records in proptest::collection::vec(record(), 0..40)) {
            let bytes = made(&records);
            let cdb = Cdb::new(&bytes);
            prop_assert_eq!(cdb.check(), Ok(()));
            for (key, _) in &records {
                let first = records.iter().find(|(known, _)| known == key).map(|(_, value)| &value[..]);
                prop_assert_eq!(cdb.find(key).unwrap(), first);
            }
            prop_assert_eq!(cdb.find(b"c").unwrap(), None);
        }

        /// Whatever becomes of the bytes: an answer comes, and what was found right is never an error.
        #[test]
        fn damage_is_told_and_breaks_nothing(
            records in proptest::collection::vec(record(), 0..20),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = made(&records);
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(length.index(bytes.len() + 1));
            let cdb = Cdb::new(&bytes);
            let checked = cdb.check();
            for (key, _) in &records {
                let found = cdb.find(key);
                prop_assert!(checked.is_err() || found.is_ok());
            }
        }
    }

    #[test]
    fn tables_that_say_they_are_huge_end_soon() {
        let mut bytes = [[0xff; 3].as_slice(), &[0x7f]].concat().repeat(512);
        assert!(Cdb::new(&bytes).find(b"key").is_err());
        // All tables are the whole file, and each place is taken.
        for table in bytes.chunks_mut(8) {
            table.copy_from_slice(&[0, 0, 0, 0, 0, 1, 0, 0]);
        }
        assert!(Cdb::new(&bytes).check().is_err());
        assert_eq!(Cdb::new(&bytes).find(b"key"), Ok(None));
    }
}
