//! One statement for all who ask the same kind of question at once.
//!
//! What must be decided from current rows is asked on every request; one round trip for each would cost more than a
//! cached answer is worth. So questions gather while the statement before them is on its way, as commands do in a
//! group commit, and a statement that answers them always begins after they were asked.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc, time::Duration};

use platform::problem::Problem;
use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::yield_now,
    time::timeout,
};

use crate::failure::Failure;

/// Questions that wait at most; one more is refused with 503.
const WAITING: usize = 8_192;
/// Questions in one statement at most: enough for any burst, small enough to be answered in milliseconds.
const TOGETHER: usize = 256;
/// How long a connection that was kept may take, until it counts as dead: all others wait behind its questions.
const ALIVE: Duration = Duration::from_secs(2);
/// When who was refused may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A kind of question that one statement can answer many of.
pub(crate) trait Ask: Send + Sync + 'static {
    type Question: Clone + Eq + Hash + Send + Sync + 'static;
    type Answer: Clone + Send + 'static;

    /// The answers, in the questions' order. The questions differ from one another.
    fn ask(
        &self,
        questions: &[Self::Question],
        connection: &mut PgConnection,
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Answer>>> + Send;
}

struct Asked<A: Ask> {
    question: A::Question,
    answer: oneshot::Sender<Result<A::Answer, Failure>>,
}

/// Where to ask. Clones share it; it ends with the last of them.
pub(crate) struct Batch<A: Ask> {
    queue: mpsc::Sender<Asked<A>>,
}

impl<A: Ask> Clone for Batch<A> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<A: Ask> Batch<A> {
    /// Starts answering, in so many statements at once, each on a connection of its own: what decides who may see does
    /// not wait for what is shown.
    pub(crate) fn start(ask: A, pool: &PgPool, lanes: usize) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        let ask = Arc::new(ask);
        let waiting = Arc::new(Mutex::new(waiting));
        let options = pool.connect_options();
        for _ in 0..lanes {
            let lane = Lane { ask: Arc::clone(&ask), options: Arc::clone(&options), connection: None };
            tokio::spawn(lane.run(Arc::clone(&waiting)));
        }
        Self { queue }
    }

    /// The answer, from rows as they are at some time after this call.
    ///
    /// # Errors
    /// 503 where the database is away, or too many ask; 500 for a defect.
    pub(crate) async fn ask(&self, question: A::Question) -> Result<A::Answer, Problem> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Asked { question, answer }).map_err(|_| too_many())?;
        // No answer at all: the process is going down.
        Ok(answered.await.unwrap_or_else(|_| Err(too_many().into()))?)
    }
}

fn too_many() -> Problem {
    Problem::unavailable("More reads are waiting than can be served now.", RETRY_AFTER)
}

struct Lane<A> {
    ask: Arc<A>,
    options: Arc<PgConnectOptions>,
    connection: Option<PgConnection>,
}

impl<A: Ask> Lane<A> {
    async fn run(mut self, waiting: Arc<Mutex<mpsc::Receiver<Asked<A>>>>) {
        let mut asked = Vec::with_capacity(TOGETHER);
        while self.gather(&waiting, &mut asked).await > 0 {
            let mut askers: HashMap<A::Question, Vec<_>> = HashMap::with_capacity(asked.len());
            for Asked { question, answer } in asked.drain(..) {
                askers.entry(question).or_default().push(answer);
            }
            let (questions, askers): (Vec<_>, Vec<_>) = askers.into_iter().unzip();
            match self.answers(&questions).await {
                Ok(answers) => {
                    for (answer, askers) in answers.into_iter().zip(askers) {
                        tell(askers, &Ok(answer));
                    }
                }
                Err(error) => tell(askers.into_iter().flatten(), &Err(Failure::from(error))),
            }
        }
    }

    /// Waits for a question, and takes those that come with it: whoever is about to run goes first, as many ask the
    /// moment the answers before reached them, and a statement costs as much for one as for twenty.
    async fn gather(&self, waiting: &Mutex<mpsc::Receiver<Asked<A>>>, asked: &mut Vec<Asked<A>>) -> usize {
        let mut waiting = waiting.lock().await;
        let first = waiting.recv_many(asked, TOGETHER).await;
        if first == 0 {
            return 0;
        }
        yield_now().await;
        while asked.len() < TOGETHER
            && let Ok(more) = waiting.try_recv()
        {
            asked.push(more);
        }
        asked.len()
    }

    /// A connection that was kept may have died meanwhile: then once more on a new one.
    async fn answers(&mut self, questions: &[A::Question]) -> sqlx::Result<Vec<A::Answer>> {
        if let Some(mut kept) = self.connection.take()
            && let Ok(Ok(answers)) = timeout(ALIVE, self.ask.ask(questions, &mut kept)).await
        {
            self.connection = Some(kept);
            return Ok(answers);
        }
        let mut fresh = PgConnection::connect_with(&self.options).await?;
        let answers = self.ask.ask(questions, &mut fresh).await?;
        self.connection = Some(fresh);
        Ok(answers)
    }
}

/// Who has gone meanwhile is not told.
fn tell<T: Clone>(askers: impl IntoIterator<Item = oneshot::Sender<Result<T, Failure>>>, answer: &Result<T, Failure>) {
    for asker in askers {
        let _ = asker.send(answer.clone());
    }
}
