//! The SMTP service: sessions on sockets, submission, and the policy that admits mail.
//!
//! Two roles live here. The [`Front`] holds the sockets and the TLS keys and nothing else: it asks
//! [`policy`] who may do what and hands complete messages to the queue, both by links. Neither
//! knows whether the other is a task of the same process or a process of its own.

mod front;
pub mod policy;

pub use front::{
    Front, FrontEnds, FrontLimits, FrontSettings, GreylistService, GreylistServiceSettings, Ground,
    ListenerSettings, RecipeFact, TlsMode, recipe_differences,
};
