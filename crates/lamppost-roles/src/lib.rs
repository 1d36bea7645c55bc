//! What the roles of the mail service say to each other.
//!
//! The front (sockets), policy (accounts, greylist, DNS), the queue (sole owner of the spool) and
//! delivery (mailboxes) share no memory: they exchange the owned, serialisable values of this crate
//! over the links of `lamppost_net::link`, which run over a channel inside one process or over a
//! socket between two.
//!
//! Each pair of roles has its own question and answer type, so that a role can ask only what its
//! work needs: the front can hand in mail, and cannot list or delete any.

mod control;
mod delivery;
mod envelope;
mod file_stamp;
mod greylist;
mod intake;
mod policy;
mod queue_id;
mod users;

pub use control::{
    Attempt, Changes, ControlAnswer, ControlRequest, Filter, Listing, MessageView, QueueStatus,
    RecipientState, RecipientView, Selection, Snapshot, SnapshotFile, StateFilter, Unchanged, Verb,
    WhyUnchanged,
};
pub use delivery::{
    Content, ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryJob, DeliveryRequest, Outcome,
    Placement, Reason, RelayJob,
};
pub use envelope::{Envelope, Origin, Peer, PeerError, Recipient, Route, Timestamp};
pub use file_stamp::FileStamp;
pub use greylist::{
    EvidenceView, GreylistAnswer, GreylistAttempt, GreylistFilter, GreylistImported,
    GreylistListing, GreylistMemory, GreylistRequest, GreylistStats, GreylistWhy, ManualRow,
    ManualWhom, TripletView,
};
pub use intake::{IntakeAnswer, IntakeRequest, UploadId};
pub use policy::{
    Admission, Passage, PolicyAnswer, PolicyRequest, RouteAnswer, RouteRequest, RulesAnswer,
    RulesRequest, Submitter, Verdict,
};
pub use queue_id::{QueueId, QueueIdError};
pub use users::{
    OwnerAnswer, OwnerQuestion, OwnerRequest, OwnerWork, SystemUser, UserAnswer, UserMailbox,
    UserName, UserRequest,
};
