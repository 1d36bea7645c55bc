//! Numbers as people read them.

/// `1 message`, `2 messages`; `2 addresses`, `2 tries`.
pub fn count(number: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if number == 1 => format!("1 {noun}"),
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{number} {stem}ies"),
        _ if noun.ends_with('s') => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let counted = [0, 1, 2].map(|number| count(number, "sync"));
        assert_eq!(counted, ["0 syncs", "1 sync", "2 syncs"]);
        let counted =
            ["address", "try", "day"].map(|noun| [1, 2].map(|number| count(number, noun)));
        let expected = [["1 address", "2 addresses"], ["1 try", "2 tries"], ["1 day", "2 days"]];
        assert_eq!(counted, expected);
    }
}
