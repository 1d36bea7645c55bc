//! Any bytes from a role that was taken over, as questions to another.
#![no_main]

use lamppost_net::link::{carry_answers, link};
use lamppost_roles::{IntakeAnswer, IntakeRequest, PolicyAnswer, PolicyRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (policy, mut asked) = link::<PolicyRequest, PolicyAnswer>();
        tokio::spawn(async move { while asked.next().await.is_some() {} });
        let _ended = carry_answers(policy, tokio::io::join(bytes, tokio::io::sink())).await;
        let (intake, mut asked) = link::<IntakeRequest, IntakeAnswer>();
        tokio::spawn(async move { while asked.next().await.is_some() {} });
        let _ended = carry_answers(intake, tokio::io::join(bytes, tokio::io::sink())).await;
    });
});
