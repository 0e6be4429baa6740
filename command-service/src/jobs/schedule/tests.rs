use chrono::Timelike as _;

use super::*;

/// Its clocks skip from 2 to 3 on 2026-03-29, at 01:00 UTC; and go back from 3 to 2 on 2026-10-25, at 01:00 UTC.
const BERLIN: &str = "Europe/Berlin";

fn schedule(expression: &str, zone: &str) -> Schedule {
    Schedule::new(expression.parse().expect("an expression"), zone.parse().expect("a zone"))
}

fn at(time: &str) -> DateTime<Utc> {
    time.parse().expect("a time")
}

/// The due times from `from` until `to`, as UTC shows them.
fn due_times(expression: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let schedule = schedule(expression, zone);
    let times = successors(schedule.next(at(from)), |time| schedule.next(*time));
    let times = times.take_while(|time| *time <= at(to));
    times.map(|time| time.format("%d %H:%M").to_string()).collect()
}

#[test]
fn a_time_of_day_stays_one_when_the_clocks_change() {
    let six = due_times("0 0 18 * * *", BERLIN, "2026-03-28T00:00:00Z", "2026-03-30T23:00:00Z");
    assert_eq!(six, ["28 17:00", "29 16:00", "30 16:00"]);
    let six = due_times("0 0 18 * * *", BERLIN, "2026-10-24T00:00:00Z", "2026-10-26T23:00:00Z");
    assert_eq!(six, ["24 16:00", "25 17:00", "26 17:00"]);
}

#[test]
fn a_time_that_does_not_exist_is_due_when_the_clocks_skip_it() {
    let half_past_two = due_times("0 30 2 * * *", BERLIN, "2026-03-28T00:00:00Z", "2026-03-30T23:00:00Z");
    assert_eq!(half_past_two, ["28 01:30", "29 01:00", "30 00:30"]);
    // Several that are skipped at once are one due time.
    let quarters = due_times("0 */15 2 * * *", BERLIN, "2026-03-29T00:00:00Z", "2026-03-29T23:00:00Z");
    assert_eq!(quarters, ["29 01:00"]);
    // A whole day that never was: it went from the 29th to the 31st of December 2011, at 10:00 UTC of the 30th.
    let samoa = due_times("0 0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2012-01-15T00:00:00Z");
    assert_eq!(samoa, ["30 10:00"]);
}

#[test]
fn a_time_that_exists_twice_is_due_the_first_time() {
    let half_past_two = due_times("0 30 2 * * *", BERLIN, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(half_past_two, ["25 00:30", "26 01:30"]);
    let halves = due_times("0 0,30 2,3 * * *", BERLIN, "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
    assert_eq!(halves, ["25 00:00", "25 00:30", "25 02:00", "25 02:30"]);
    let twice = schedule("0 30 2 * * *", BERLIN);
    // 02:15 and 02:45, for the second time.
    for shown_again in ["2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z"] {
        assert_eq!(twice.last(at(shown_again)), Some(at("2026-10-25T00:30:00Z")), "{shown_again}");
        assert_eq!(twice.next(at(shown_again)), Some(at("2026-10-26T01:30:00Z")), "{shown_again}");
    }
}

#[test]
fn each_hour_means_the_hours_that_pass() {
    let spring = due_times("0 7 * * * *", BERLIN, "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z");
    assert_eq!(spring, ["29 00:07", "29 01:07", "29 02:07"]);
    let autumn = due_times("0 7 * * * *", BERLIN, "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z");
    assert_eq!(autumn, ["25 00:07", "25 01:07", "25 02:07"]);
    // On that day only, which has 25 hours.
    let day = due_times("0 0 * 25 10 *", BERLIN, "2026-10-01T00:00:00Z", "2026-11-30T00:00:00Z");
    assert_eq!((day.len(), &*day[0], &*day[24]), (25, "24 22:00", "25 22:00"));
    // Half an hour, in Lord Howe.
    let howe = due_times("0 45 * * * *", "Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-04T16:00:00Z");
    assert_eq!(howe, ["04 13:45", "04 14:45", "04 15:15"]);
}

/// Brute force: with `*` for its hour, a second is due exactly where the clocks show one that matches.
#[test]
fn each_second_of_a_change_is_reckoned_as_the_clocks_show_it() {
    for day in ["2026-03-29T00:30:00Z", "2026-10-25T00:30:00Z"] {
        let schedule = schedule("*/7 3,4,58 * * * *", BERLIN);
        let zone: Tz = BERLIN.parse().expect("a zone");
        let mut last = None;
        for second in 0..3 * 3600 {
            let now = at(day) + TimeDelta::seconds(second);
            let shown = now.with_timezone(&zone);
            if shown.second().is_multiple_of(7) && [3, 4, 58].contains(&shown.minute()) {
                last = Some(now);
            }
            if last.is_some() {
                assert_eq!(schedule.last(now), last, "{shown}");
            }
        }
    }
}

#[test]
fn what_comes_next_is_what_came_last_once_it_has_come() {
    let expressions =
        ["0 7 * * * *", "*/20 59 * * * *", "0 30 2 * * *", "0 */20 1-3 * * *", "0 0 0 * * SUN", "0 0 */6 * * *"];
    for (expression, day) in expressions.iter().flat_map(|it| [(it, "2026-03-28"), (it, "2026-10-24")]) {
        let schedule = schedule(expression, BERLIN);
        let from = at(&format!("{day}T00:00:00Z"));
        let mut before = schedule.last(from).expect("a time before");
        for time in successors(schedule.next(from), |time| schedule.next(*time)).take(200) {
            assert!(time > before, "{expression}: {time} after {before}");
            assert_eq!(schedule.last(time - TimeDelta::milliseconds(1)), Some(before), "{expression}");
            assert_eq!(schedule.last(time), Some(time), "{expression}");
            before = time;
        }
    }
}

#[test]
fn what_came_due_meanwhile_is_due_once_for_its_last_time() {
    let hourly = schedule("0 0 * * * *", "UTC");
    let (now, last) = (at("2026-05-01T12:30:00Z"), at("2026-05-01T12:00:00Z"));
    assert_eq!(hourly.due(None, now), Due::Now(last), "never yet");
    assert_eq!(hourly.due(Some(at("2026-04-30T00:00:00Z")), now), Due::Now(last), "36 hours of nothing");
    assert_eq!(hourly.due(Some(last), now), Due::NotYet);
    assert_eq!(hourly.due(Some(last), at("2026-05-01T13:00:00Z")), Due::Now(at("2026-05-01T13:00:00Z")));
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_happen_twice_and_holds_nothing_up_for_longer() {
    let hourly = schedule("0 0 * * * *", "UTC");
    let done = Some(at("2026-05-01T12:00:00Z"));
    assert_eq!(hourly.due(done, at("2026-05-01T11:59:59Z")), Due::NotYet, "within a period");
    assert_eq!(hourly.due(done, at("2026-05-01T11:00:00Z")), Due::NotYet, "12:00 was worked off already");
    let back = at("2026-05-01T09:30:00Z");
    assert_eq!(hourly.due(done, back), Due::SetBack(at("2026-05-01T09:00:00Z")), "from there on it goes on");
    assert_eq!(hourly.due(Some(at("2026-05-01T09:00:00Z")), back), Due::NotYet);
}

#[test]
fn a_schedule_in_one_year_only_is_not_due_before_and_not_after() {
    let once = schedule("0 0 0 1 1 * 2030", "UTC");
    assert_eq!(once.due(None, at("2026-05-01T00:00:00Z")), Due::NotYet);
    assert_eq!((once.last(at("2029-12-31T23:59:59Z")), once.next(at("2030-01-01T00:00:00Z"))), (None, None));
}

#[test]
fn what_is_no_expression_or_zone_is_refused() {
    for text in ["hourly", "", "* * * * *", "0 0 25 * * *", "* * * * * * * *"] {
        assert!(matches!(text.parse::<Expression>(), Err(NoExpression::Malformed(..))), "{text}");
    }
    assert_eq!("0 0 0 30 2 *".parse::<Expression>().err(), Some(NoExpression::Never("0 0 0 30 2 *".into())));
    for name in ["CET+1", "europe/berlin", "Berlin", ""] {
        assert!(name.parse::<Zone>().is_err(), "{name}");
    }
}
