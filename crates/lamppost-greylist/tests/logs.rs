//! Mail logs as attempts: lines as the mail servers write them.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use lamppost_greylist::replay::{Delivery, Log, LogKind};
use proptest::prelude::*;

/// What a log tells, one attempt a line.
fn told(kind: LogKind, text: &str) -> String {
    let mut log = Log::new(kind);
    let mut all: Vec<Delivery> = text.lines().filter_map(|line| log.read(line)).collect();
    while let Some(delivery) = log.end() {
        all.push(delivery);
    }
    let shown = all.iter().map(|delivery| {
        let Delivery { at, peer, helo, names, sender, recipients, is_authenticated, .. } = delivery;
        let host = match names.as_deref() {
            None => "?",
            Some([]) => "-",
            Some([name, ..]) => name,
        };
        let auth = if *is_authenticated { " auth" } else { "" };
        let (at, to) = (at.as_secs(), recipients.join(" "));
        format!("{at} {peer} {host} {helo:?} <{sender}> -> {to} {:?}{auth}\n", delivery.spf.domain)
    });
    shown.collect()
}

#[test]
fn postfix_tells_what_came_and_what_must_come_back() {
    let log = "\
Nov 25 16:00:00 mx postfix/smtpd[101]: connect from mail.example.org[192.0.2.1]
Nov 25 16:00:01 mx postfix/smtpd[101]: NOQUEUE: reject: RCPT from mail.example.org[192.0.2.1]: 450 4.2.0 <demo@here.test>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/here.test.html; from=<a=b@example.org> to=<demo@here.test> proto=ESMTP helo=<mail.example.org>
Nov 25 16:00:02 mx postfix/smtpd[102]: NOQUEUE: reject: RCPT from unknown[2001:db8::9]: 554 5.7.1 Service unavailable; from=<x@spam.test> to=<demo@here.test> proto=SMTP helo=<x>
Nov 25 16:06:00 mx postfix/smtpd[101]: 4XyzQ0: client=mail.example.org[192.0.2.1]
Nov 25 16:06:00 mx postfix/cleanup[103]: 4XyzQ0: message-id=<1@example.org>
Nov 25 16:06:01 mx postfix/qmgr[99]: 4XyzQ0: from=<a=b@example.org>, size=512, nrcpt=2 (queue active)
Nov 25 16:06:01 mx postfix/local[104]: 4XyzQ0: to=<demo@here.test>, relay=local, delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (delivered to maildir)
Nov 25 16:06:01 mx postfix/local[104]: 4XyzQ0: to=<root@here.test>, orig_to=<admin@here.test>, relay=local, delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (delivered to maildir)
Nov 25 16:06:01 mx postfix/qmgr[99]: 4XyzQ0: removed
Nov 25 16:07:00 mx postfix/submission/smtpd[105]: 4XyzQ1: client=unknown[198.51.100.7], sasl_method=PLAIN, sasl_username=demo
Nov 25 16:07:01 mx postfix/qmgr[99]: 4XyzQ1: from=<demo@here.test>, size=512, nrcpt=1 (queue active)
Nov 25 16:07:02 mx postfix/smtp[106]: 4XyzQ1: to=<a@example.org>, relay=mx.example.org[192.0.2.2]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok to=<evil@x.test>)
Nov 25 16:08:00 mx postfix/smtpd[105]: 4XyzQ2: client=localhost[127.0.0.1]
Nov 25 16:08:00 mx dovecot: imap-login: Login: user=<demo>
";
    insta::assert_snapshot!(told(LogKind::Postfix, log), @r#"
    975168001 192.0.2.1 mail.example.org "mail.example.org" <a=b@example.org> -> demo@here.test ""
    975168360 192.0.2.1 mail.example.org "" <a=b@example.org> -> demo@here.test admin@here.test ""
    975168420 198.51.100.7 - "" <demo@here.test> -> a@example.org "" auth
    "#);
}

#[test]
fn exim_tells_what_came_and_what_must_come_back() {
    let log = r#"2026-11-25 16:00:00 H=mail.example.org (helo.example.org) [192.0.2.1]:4321 F=<a@example.org> temporarily rejected RCPT <demo@here.test>: greylisted (new): try again in 300 seconds
2026-11-25 16:00:01 H=(x) [192.0.2.9] F=<s@spam.test> rejected RCPT <demo@here.test>: no
2026-11-25 16:06:00 1vNabc-000000001Ab-2CdE <= a@example.org H=mail.example.org (helo.example.org) [192.0.2.1]:4322 P=esmtps S=700 id=1@example.org T="me for you@x.test"
2026-11-25 16:06:00 1vNabc-000000001Ab-2CdE => demo <demo@here.test> R=local_user T=maildir_home
2026-11-25 16:06:00 1vNabc-000000001Ab-2CdE -> info@here.test R=local_user T=maildir_home
2026-11-25 16:06:00 1vNabc-000000001Ab-2CdE Completed
2026-11-25 16:07:00 [77] 1rAbCd-0001Ab-2C <= <> H=[2001:db8::1] P=smtp S=700 T="it" from <> for demo@here.test info@here.test
2026-11-25 16:08:00 1rAbCe-0001Ab-2C <= demo@here.test H=(laptop) [198.51.100.7] P=esmtpsa A=plain_login:demo S=700
2026-11-25 16:08:00 1rAbCe-0001Ab-2C == a@example.org R=dnslookup T=remote_smtp defer (-44): 451 later
2026-11-25 16:09:00 1rAbCf-0001Ab-2C <= root@here.test U=root P=local S=300
"#;
    insta::assert_snapshot!(told(LogKind::Exim, log), @r#"
    1795622400 192.0.2.1 mail.example.org "helo.example.org" <a@example.org> -> demo@here.test ""
    1795622760 192.0.2.1 mail.example.org "helo.example.org" <a@example.org> -> demo@here.test info@here.test ""
    1795622820 2001:db8::1 - "" <> -> demo@here.test info@here.test ""
    1795622880 198.51.100.7 - "laptop" <demo@here.test> -> a@example.org "" auth
    "#);
}

#[test]
fn its_own_log_tells_what_was_decided() {
    let log = r#"2026-11-25T16:00:00.000001Z  INFO greylist defers peer=192.0.2.1 from="\"a b\"@example.org" to="demo@here.test" reason="new" retry_in_s=300 rule="unknown" networks="spf:example.org name:example.org 192.0.2.0"
2026-11-25T16:06:00.000001Z  INFO greylist passes peer=192.0.2.1 from="" to="demo@here.test" reason="waited" waited_s=360 rule="unknown" networks="192.0.2.0"
2026-11-25T16:06:00.000001Z  INFO message accepted session=1 peer=192.0.2.1
{"timestamp":"2026-11-25T16:07:00.000001Z","level":"INFO","message":"greylist would defer","peer":"2001:db8::1","from":"x@y.test","to":"demo@here.test","reason":"new"}
{"MESSAGE":"greylist defers","PEER":"192.0.2.3","FROM":"x@y.test","TO":"demo@here.test","__REALTIME_TIMESTAMP":"1795622880000000"}
"#;
    insta::assert_snapshot!(told(LogKind::Lamppost, log), @r#"
    1795622400 192.0.2.1 example.org "" <"a b"@example.org> -> demo@here.test "example.org"
    1795622760 192.0.2.1 ? "" <> -> demo@here.test ""
    1795622820 2001:db8::1 ? "" <x@y.test> -> demo@here.test ""
    1795622880 192.0.2.3 ? "" <x@y.test> -> demo@here.test ""
    "#);
}

proptest! {
    #[test]
    fn any_line_is_read(lines in proptest::collection::vec(
        "(Nov 25 16:00:00 mx postfix/(smtpd|qmgr|smtp)\\[1\\]: |2026-11-25 16:00:00 )?(NOQUEUE: reject: RCPT from |A: client=|A: from=<|A <= |A => |H=)?\\PC{0,60}",
        0..20,
    )) {
        for kind in [LogKind::Exim, LogKind::Lamppost, LogKind::Postfix] {
            let _told = told(kind, &lines.join("\n"));
        }
    }
}
