//! Policy is asked about a connection where there is anything to decide by, and only there.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lamppost_mail::{
    Front, FrontEnds, FrontLimits, FrontSettings, Ground, ListenerSettings, TlsMode,
};
use lamppost_net::link::{Inbox, link};
use lamppost_net::{Drain, SystemClock};
use lamppost_roles::{Admission, PolicyAnswer, PolicyRequest};
use lamppost_smtp::{AuthOffer, Kind, Limits, Settings};
use lamppost_telemetry::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Lets everybody in; counts the questions whether it would.
async fn answer(mut asked: Inbox<PolicyRequest, PolicyAnswer>, count: Arc<AtomicUsize>) {
    while let Some((question, reply)) = asked.next().await {
        assert!(matches!(question, PolicyRequest::Connection { .. }), "{question:?}");
        count.fetch_add(1, Ordering::Relaxed);
        reply.send(PolicyAnswer::Admitted(Admission::default()));
    }
}

fn listener(kind: Kind) -> Arc<ListenerSettings> {
    let smtp = Settings {
        hostname: "mail.lamppost.test".into(),
        kind,
        starttls: false,
        auth: AuthOffer::Never,
        limits: Limits::default(),
    };
    Arc::new(ListenerSettings {
        name: "test".into(),
        smtp: Arc::new(smtp),
        tls: TlsMode::Off,
        proxy_from: Vec::new(),
        fix_for: Vec::new(),
    })
}

/// A session on a listener of this kind: how often is asked about its connection?
async fn check(grounds: &[Ground], kind: Kind, expected: usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let (policy, asked) = link();
    tokio::spawn(answer(asked, count.clone()));
    let settings = FrontSettings {
        hostname: "mail.lamppost.test".into(),
        limits: FrontLimits::default(),
        grounds: grounds.to_vec(),
    };
    let (intake, _nobody) = link();
    let ends = FrontEnds { policy, intake };
    let front =
        Front::new(settings, ends, (Arc::new(SystemClock), Metrics::new()), Drain::default());
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let dialogue = async {
        client.write_all(b"NOOP\r\nQUIT\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut told = String::new();
        client.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("220 ") && told.contains("\r\n221 "), "{told}");
    };
    let serving = front.serve(server, "192.0.2.1".parse().unwrap(), listener(kind), None);
    tokio::join!(serving, dialogue);
    assert_eq!(count.load(Ordering::Relaxed), expected, "{grounds:?} {kind:?}");
}

#[tokio::test]
async fn what_cannot_be_decided_is_not_asked() {
    use Ground::{Lists, Rules};
    use Kind::{Mx, Submission};
    for (grounds, kind, expected) in [
        (&[][..], Mx, 0),
        (&[], Submission, 0),
        (&[Rules], Mx, 1),
        (&[Rules], Submission, 1),
        (&[Lists], Mx, 1),
        // Nobody who says who it is is looked up.
        (&[Lists], Submission, 0),
        (&[Rules, Lists], Mx, 1),
        (&[Rules, Lists], Submission, 1),
    ] {
        check(grounds, kind, expected).await;
    }
}
