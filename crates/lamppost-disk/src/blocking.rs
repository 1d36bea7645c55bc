//! Where work that blocks is done.

/// Where work that blocks is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blocking {
    /// On the task that asks: simulations, where nothing really blocks and every run with one seed
    /// must be the same.
    Inline,
    /// On threads that may block.
    #[default]
    Threads,
}

/// The work was cut short: it panicked, or the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the work was cut short")
    }
}

impl std::error::Error for Cut {}

impl Blocking {
    /// Does the work and waits for it.
    ///
    /// # Errors
    /// [`Cut`] when it panicked or the program ends.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Cut> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(|_| Cut),
            Self::Inline => {
                // Others get their turn, as they would while a thread works.
                tokio::task::yield_now().await;
                Ok(work())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_ways_give_the_result() {
        for blocking in [Blocking::Inline, Blocking::Threads] {
            assert_eq!(blocking.run(|| 7).await, Ok(7));
        }
    }
}
