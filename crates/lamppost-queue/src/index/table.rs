//! Values that many messages share, each kept once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// The place of a value in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle(pub(crate) u32);

/// Values with the number of their users; a value without users is forgotten.
#[derive(Debug)]
pub(crate) struct Table<T> {
    handles: HashMap<Arc<T>, Handle>,
    entries: Vec<Option<Entry<T>>>,
    free: Vec<Handle>,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    users: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { handles: HashMap::new(), entries: Vec::new(), free: Vec::new() }
    }
}

impl<T: Eq + Hash> Table<T> {
    /// The place of a value, which has one user more.
    pub(crate) fn keep(&mut self, value: T) -> Handle {
        if let Some(&handle) = self.handles.get(&value) {
            if let Some(Some(entry)) = self.entries.get_mut(handle.0 as usize) {
                entry.users += 1;
            }
            return handle;
        }
        let value = Arc::new(value);
        let entry = Some(Entry { value: value.clone(), users: 1 });
        let next = Handle(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        let handle = self.free.pop().unwrap_or(next);
        match self.entries.get_mut(handle.0 as usize) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        self.handles.insert(value, handle);
        handle
    }

    /// The value at a place has one user more.
    pub(crate) fn keep_again(&mut self, handle: Handle) {
        if let Some(Some(entry)) = self.entries.get_mut(handle.0 as usize) {
            entry.users += 1;
        }
    }

    /// The value has one user less; true when that was the last.
    pub(crate) fn let_go(&mut self, handle: Handle) -> bool {
        let Some(place) = self.entries.get_mut(handle.0 as usize) else { return false };
        let Some(entry) = place else { return false };
        entry.users -= 1;
        if entry.users > 0 {
            return false;
        }
        self.handles.remove(&entry.value);
        *place = None;
        self.free.push(handle);
        true
    }

    /// The value at a place that has users.
    pub(crate) fn get(&self, handle: Handle) -> Option<&Arc<T>> {
        self.entries.get(handle.0 as usize)?.as_ref().map(|entry| &entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_once_and_as_long_as_it_is_used() {
        let mut table = Table::default();
        let (a, b) = (table.keep("a"), table.keep("b"));
        assert_eq!(table.keep("a"), a);
        table.let_go(a);
        assert_eq!(**table.get(a).unwrap(), "a");
        table.let_go(a);
        assert_eq!(table.get(a), None);
        assert_eq!(table.keep("c"), a, "the place is used again");
        assert_ne!(table.keep("a"), b);
    }
}
