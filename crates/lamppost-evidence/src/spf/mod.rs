//! SPF (RFC 7208): whether a domain lets a client send, and how many others it lets send too.

mod breadth;
mod check;
mod network;
mod record;
mod spec;
mod subject;
mod walk;

pub(crate) use self::breadth::is_narrow;
pub(crate) use self::check::check;
pub(crate) use self::subject::Subject;

/// What SPF says of a client (RFC 7208).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spf {
    /// The result.
    pub result: SpfResult,
    /// The domain that was asked, in lower case: the sender's, or that of HELO for the null sender. Empty
    /// where there is none.
    pub domain: String,
    /// Whether the addresses that it lets send are known, and so few that they may count as one network.
    pub is_narrow: bool,
}

/// Results of SPF (RFC 7208 §2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpfResult {
    /// The client may not send for the domain.
    Fail,
    /// The domain says neither.
    Neutral,
    /// The domain says nothing of this kind.
    None,
    /// The client may send for the domain.
    Pass,
    /// What the domain says cannot be used.
    PermError,
    /// The client probably may not.
    SoftFail,
    /// It could not be found out.
    #[default]
    TempError,
}

/// A record is not as the standard wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

impl SpfResult {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Fail,
        Self::Neutral,
        Self::None,
        Self::Pass,
        Self::PermError,
        Self::SoftFail,
        Self::TempError,
    ];

    /// Its name in the standard.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::Pass => "pass",
            Self::PermError => "permerror",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
        }
    }

    /// The result of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|result| result.name().eq_ignore_ascii_case(name))
    }
}
