//! The addresses in a field such as To, and in recipients on the command line (RFC 5322 §3.4).

/// A list that cannot be told apart into addresses, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadList(pub(super) String);

/// The addresses of a list, without names, comments, groups and routes; some may have no domain.
///
/// # Errors
/// When a part of it is no address: whoever was meant would get nothing.
pub(super) fn addresses(list: &str) -> Result<Vec<String>, BadList> {
    let mut reading = Reading { list, ..Reading::default() };
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '(' => skip_comment(&mut letters),
            '"' => {
                let quoted = quoted(&mut letters).ok_or_else(|| BadList(list.to_owned()))?;
                reading.add(&quoted);
            }
            '[' => {
                // An address literal may hold colons.
                let literal: String =
                    letters.by_ref().take_while(|&letter| letter != ']').collect();
                reading.add(&format!("[{literal}]"));
            }
            '<' if reading.angle != Angle::Open => reading.open()?,
            '>' if reading.angle == Angle::Open => reading.angle = Angle::Closed,
            ',' | ';' if reading.angle != Angle::Open => reading.finish()?,
            // A group's name ends, or a host of a route.
            ':' | ',' => reading.forget(),
            _ if letter.is_whitespace() => reading.gap(),
            _ => reading.add(letter.encode_utf8(&mut [0; 4])),
        }
    }
    if reading.angle == Angle::Open {
        return Err(BadList(list.to_owned()));
    }
    reading.finish()?;
    Ok(reading.found)
}

/// Angle brackets of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Angle {
    #[default]
    None,
    Open,
    Closed,
}

/// How far a list was read.
#[derive(Default)]
struct Reading<'a> {
    list: &'a str,
    /// What may be an address, outside or inside of angle brackets.
    text: String,
    /// Whether a space followed it, and whether more came behind that.
    space: bool,
    words: bool,
    angle: Angle,
    found: Vec<String>,
}

impl Reading<'_> {
    fn add(&mut self, text: &str) {
        // Behind `<a@b>` nothing may stand.
        self.words |= self.space || self.angle == Angle::Closed;
        self.text.push_str(text);
    }

    fn gap(&mut self) {
        self.space |= !self.text.is_empty();
    }

    fn forget(&mut self) {
        self.text.clear();
        (self.space, self.words) = (false, false);
    }

    fn open(&mut self) -> Result<(), BadList> {
        if self.angle == Angle::Closed {
            return Err(BadList(self.list.to_owned()));
        }
        self.forget();
        self.angle = Angle::Open;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BadList> {
        if self.words || (self.angle == Angle::Closed && self.text.is_empty()) {
            return Err(BadList(self.list.to_owned()));
        }
        if !self.text.is_empty() {
            self.found.push(std::mem::take(&mut self.text));
        }
        self.forget();
        self.angle = Angle::None;
        Ok(())
    }
}

fn skip_comment(letters: &mut std::str::Chars<'_>) {
    let mut depth = 1;
    while depth > 0 {
        match letters.next() {
            Some('(') => depth += 1,
            Some(')') => depth -= 1,
            Some('\\') => drop(letters.next()),
            Some(_) => {}
            None => return,
        }
    }
}

/// A quoted string with its quotes; nothing when it does not end.
fn quoted(letters: &mut std::str::Chars<'_>) -> Option<String> {
    let mut text = String::from("\"");
    loop {
        let letter = letters.next()?;
        text.push(letter);
        match letter {
            '"' => return Some(text),
            '\\' => text.push(letters.next()?),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(list: &str, expected: &[&str]) {
        let expected = expected.iter().map(|&address| address.to_owned()).collect();
        assert_eq!(addresses(list), Ok(expected), "{list}");
    }

    #[test]
    fn addresses_are_found_in_all_their_clothes() {
        check("a@b.test", &["a@b.test"]);
        check(" a@b.test ,\n\tc@d.test", &["a@b.test", "c@d.test"]);
        check("Some One <a@b.test>, \"Last, First\" <c@d.test>", &["a@b.test", "c@d.test"]);
        check("a@b.test (Some (odd) One, \\) really)", &["a@b.test"]);
        check("\"john, \\\"x\\\" doe\"@b.test", &["\"john, \\\"x\\\" doe\"@b.test"]);
        check("friends: a@b.test, B <c@d.test>; e@f.test", &["a@b.test", "c@d.test", "e@f.test"]);
        check("undisclosed-recipients:;", &[]);
        check("<@one.test,@two.test:a@b.test>", &["a@b.test"]);
        check("a@[IPv6:2001:db8::1]", &["a@[IPv6:2001:db8::1]"]);
        check("root, , you", &["root", "you"]);
        check("müller@b.test", &["müller@b.test"]);
        check("", &[]);
    }

    #[test]
    fn what_is_no_address_is_not_left_out() {
        for list in
            ["a@b.test c@d.test", "Some One", "<a@b.test", "\"a@b.test", "<>", "<a@b.test> x"]
        {
            assert_eq!(addresses(list), Err(BadList(list.into())));
        }
        assert!(addresses("<a@b.test> <c@d.test>").is_err());
    }

    proptest! {
        #[test]
        fn any_text_ends(list: String) {
            drop(addresses(&list));
        }

        #[test]
        fn lists_give_back_their_addresses(names in proptest::collection::vec("[a-z]{1,9}@[a-z]{1,9}", 0..9)) {
            prop_assert_eq!(addresses(&names.join(", ")), Ok(names));
        }
    }
}
