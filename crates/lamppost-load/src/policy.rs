//! A load of questions in Postfix's policy protocol, as a busy mail server asks a greylist
//! (Postfix, `SMTPD_POLICY_README`).

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 4096;

/// Which triplets are asked about. Each has a number, and everything in it follows from that.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// The triplets from 0 up to this are asked about again and again.
    pub known: u64,
    /// How many of a hundred questions are about triplets that were not asked about before.
    pub new_percent: u64,
    /// The first of those.
    pub new_from: u64,
}

impl Mix {
    /// The triplet of a question.
    fn triplet(self, question: u64) -> u64 {
        let new_before = |question: u64| question * self.new_percent / 100;
        let new = new_before(question);
        if new_before(question + 1) > new || self.known == 0 {
            self.new_from + new
        } else {
            (question - new) % self.known
        }
    }

    /// The first triplet that was not asked about after so many questions.
    pub fn new_after(self, questions: u64) -> u64 {
        self.new_from + questions * self.new_percent / 100
    }
}

/// A load of questions, each connection with one at a time.
#[derive(Clone, Copy, Debug)]
pub struct PolicyLoad {
    /// Where they are asked.
    pub address: SocketAddr,
    /// How many connections at once.
    pub connections: usize,
    /// What is asked about.
    pub mix: Mix,
    /// How many questions at most.
    pub questions_max: u64,
    /// How long new questions are asked.
    pub duration: Duration,
}

/// What was answered.
#[derive(Clone, Debug, Default)]
pub struct PolicyReport {
    /// How long each answer took, the shortest first.
    pub latencies: Vec<Duration>,
    /// How many answers told the client to come back later.
    pub deferred: u64,
    /// From the first question to the last answer.
    pub elapsed: Duration,
}

impl PolicyReport {
    /// How many questions were asked, and answered.
    pub fn questions(&self) -> u64 {
        self.latencies.len() as u64
    }
}

impl PolicyLoad {
    /// Asks, and waits for the last answer. One thread does it, so that as much as can be of the
    /// machine is left to who answers.
    ///
    /// # Errors
    /// A connection fails, ends, or is not answered within a minute.
    pub fn run(self) -> io::Result<PolicyReport> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.ask())
    }

    async fn ask(self) -> io::Result<PolicyReport> {
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let (begun, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut askers = JoinSet::new();
        for stream in streams {
            askers.spawn(self.ask_on(stream, next.clone(), begun));
        }
        let mut report = PolicyReport::default();
        while let Some(asked) = askers.join_next().await {
            let PolicyReport { latencies, deferred, .. } = asked.map_err(io::Error::other)??;
            report.latencies.extend(latencies);
            report.deferred += deferred;
        }
        report.elapsed = begun.elapsed();
        report.latencies.sort_unstable();
        Ok(report)
    }

    async fn ask_on(
        self,
        mut stream: TcpStream,
        next: Arc<AtomicU64>,
        begun: Instant,
    ) -> io::Result<PolicyReport> {
        let mut report = PolicyReport::default();
        let (mut question, mut answer) = (String::new(), Vec::new());
        while begun.elapsed() < self.duration {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.questions_max {
                break;
            }
            write_question(&mut question, self.mix.triplet(number));
            let asked = Instant::now();
            stream.write_all(question.as_bytes()).await?;
            let answered = tokio::time::timeout(PATIENCE, read_answer(&mut stream, &mut answer));
            answered.await.map_err(|_| io::Error::other("a question is not answered"))??;
            report.latencies.push(asked.elapsed());
            report.deferred += u64::from(is_deferral(&answer));
        }
        Ok(report)
    }
}

/// As Postfix 3.7 asks at RCPT.
fn write_question(question: &mut String, triplet: u64) {
    // Networks of 256 addresses are new each, as long as there are any.
    let [.., host, high, low] = (triplet & 0x3f_ffff).to_be_bytes();
    question.clear();
    let _infallible = write!(
        question,
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n\
         client_address=10.{high}.{low}.{}\nclient_name=mail.d{triplet}.elsewhere.test\n\
         client_port=40404\nreverse_client_name=mail.d{triplet}.elsewhere.test\n\
         server_address=127.0.0.1\nserver_port=25\nhelo_name=mail.d{triplet}.elsewhere.test\n\
         sender=sender@d{triplet}.elsewhere.test\nrecipient=user{}@lamppost.test\n\
         recipient_count=0\nqueue_id=\ninstance=1b5f.{triplet:x}.0\nsize=4096\netrn_domain=\n\
         stress=\nsasl_method=\nsasl_username=\nsasl_sender=\nccert_subject=\nccert_issuer=\n\
         ccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n\
         encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n\n",
        host + 1,
        triplet % 97,
    );
}

/// Reads one answer, with its empty line.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    answer.clear();
    while !answer.ends_with(b"\n\n") {
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("an answer does not end"));
        }
        if stream.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn is_deferral(answer: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"action=DEFER_IF_PERMIT";
    answer.get(..BEGINNING.len()).is_some_and(|found| found.eq_ignore_ascii_case(BEGINNING))
}

/// Answers DUNNO to everything, for ever: what is left when the protocol is all that is spoken.
///
/// # Errors
/// No connection can be accepted.
pub async fn answer_dunno(listener: tokio::net::TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut waiting = Vec::with_capacity(ANSWER_BYTES_MAX);
            while stream.read_buf(&mut waiting).await.is_ok_and(|bytes| bytes > 0) {
                while let Some(end) = waiting.windows(2).position(|pair| pair == b"\n\n") {
                    waiting.drain(..end + 2);
                    if stream.write_all(b"action=DUNNO\n\n").await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_mix_asks_about_what_it_says() {
        let check = |known, new_percent, wanted: &[u64]| {
            let mix = Mix { known, new_percent, new_from: 100 };
            let asked: Vec<_> = (0..wanted.len() as u64).map(|one| mix.triplet(one)).collect();
            assert_eq!(asked, wanted);
        };
        check(3, 0, &[0, 1, 2, 0, 1]);
        check(3, 100, &[100, 101, 102]);
        check(3, 50, &[0, 100, 1, 101, 2, 102, 0, 103]);
        check(20, 10, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 9, 10]);
        assert_eq!(Mix { known: 3, new_percent: 50, new_from: 100 }.new_after(8), 104);
    }

    #[test]
    fn triplets_differ() {
        let mut questions = HashSet::new();
        for triplet in [0, 1, 255, 256, 65_535, 65_536, 1_000_000] {
            let mut question = String::new();
            write_question(&mut question, triplet);
            assert!(question.ends_with("policy_context=\n\n"));
            assert!(questions.insert(question));
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a bare socket is what is asked for here")]
    fn questions_are_asked_and_answered() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                answer_dunno(tokio::net::TcpListener::from_std(listener).unwrap()).await
            })
        });
        let mix = Mix { known: 10, new_percent: 10, new_from: 10 };
        let duration = Duration::from_secs(60);
        let load = PolicyLoad { address, connections: 7, mix, questions_max: 1000, duration };
        let report = load.run().unwrap();
        assert_eq!((report.questions(), report.deferred), (1000, 0));
        assert!(report.latencies.is_sorted());
        let nothing = PolicyLoad { duration: Duration::ZERO, ..load };
        assert_eq!(nothing.run().unwrap().questions(), 0);
        assert!(is_deferral(b"action=defer_if_permit Greylisted for 5 minutes\n\n"));
    }
}
