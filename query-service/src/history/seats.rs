//! How many streams there may be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use events::AccountId;
use platform::problem::Problem;

/// Streams of one process at most: each may hold some 50 KiB, and an event of 256 KiB that its client is slow to take.
const SEATS: usize = 500;
/// Those of them that only operators are given: nobody else keeps them out.
const SEATS_OF_OPERATORS: usize = 50;
/// Streams of one account at most: more than a person has windows for.
const SEATS_OF_ACCOUNT: usize = 8;
/// When a stream that was refused may be tried again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The streams of a process, by account.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(Arc<Mutex<HashMap<AccountId, usize>>>);

/// One stream's; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    account: AccountId,
}

impl Seats {
    /// Takes one for a stream of this account; for an operator's also one of those that are kept for these.
    ///
    /// # Errors
    /// 429 where the account has its share, 503 where there is none left.
    pub(super) fn take(&self, account: AccountId, operator: bool) -> Result<Seat, Problem> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_account) = (taken.values().sum::<usize>(), taken.get(&account).copied().unwrap_or_default());
        if of_account >= SEATS_OF_ACCOUNT {
            let words = format_args!("This account has {SEATS_OF_ACCOUNT} streams open: close one of them first.");
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-streams", words);
            return Err(problem.with_retry_after(RETRY_AFTER));
        }
        if all >= if operator { SEATS } else { SEATS - SEATS_OF_OPERATORS } {
            return Err(Problem::unavailable("As many streams are open here as can be served.", RETRY_AFTER));
        }
        *taken.entry(account).or_default() += 1;
        Ok(Seat { seats: self.clone(), account })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_account) = taken.get_mut(&self.account) {
            *of_account -= 1;
            if *of_account == 0 {
                taken.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_its_share_and_gives_it_back() {
        let (seats, ada, bob) = (Seats::default(), AccountId::new(), AccountId::new());
        let mut hers: Vec<_> = (0..SEATS_OF_ACCOUNT).map(|_| seats.take(ada, false).expect("a seat")).collect();
        let refused = seats.take(ada, false).expect_err("one too many");
        assert_eq!((refused.status(), refused.name()), (StatusCode::TOO_MANY_REQUESTS, "too-many-streams"));
        drop(seats.take(bob, false).expect("his own"));
        hers.pop();
        drop(seats.take(ada, false).expect("one was given back"));
        hers.clear();
        assert!(seats.0.lock().expect("a lock").is_empty());
    }

    #[test]
    fn a_process_has_its_share_too() {
        let seats = Seats::default();
        let take = |operator| seats.take(AccountId::new(), operator);
        let mut taken: Vec<_> = (SEATS_OF_OPERATORS..SEATS).map(|_| take(false).expect("a seat")).collect();
        assert_eq!(take(false).expect_err("full").status(), StatusCode::SERVICE_UNAVAILABLE);
        taken.extend((0..SEATS_OF_OPERATORS).map(|_| take(true).expect("an operator's")));
        assert_eq!(take(true).expect_err("full").status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(taken);
        take(false).expect("a seat again");
    }
}
