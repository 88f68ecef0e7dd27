//! What each expectation came to.

use std::time::Duration;

use crate::fabric::ProcessId;
use crate::request::{Outcome, Request};
use crate::scenario::{Fact, Measure, Scenario};

/// One expectation, judged.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Its place in the file.
    pub place: usize,
    /// As it is written.
    pub text: String,
    /// Whether it is so.
    pub holds: bool,
    /// What was seen.
    pub seen: String,
}

/// Seconds, to the millisecond.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{}.{:03}s", duration.as_secs(), duration.subsec_millis())
}

/// Judges what is measured over a whole run.
pub(crate) fn measured(scenario: &Scenario, requests: &[Request], dials: &[Duration]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (place, expectation) in scenario.expect.iter().enumerate() {
        let Fact::Measured {
            measure,
            of,
            compare,
            bound,
        } = &expectation.fact
        else {
            continue;
        };
        let concerned = |request: &&Request| match of {
            Some(workload) => request.workload == Some(*workload),
            // The oracle's own requests are nobody's.
            None => request.workload.is_some(),
        };
        let requests: Vec<_> = requests.iter().filter(concerned).collect();
        let requests: Vec<_> = match measure {
            // A request that a service or a peer mistreated is not lost by Eddy.
            Measure::Availability | Measure::Lost | Measure::Longest | Measure::Outage => {
                let well = requests.into_iter().filter(|request| !request.is_mistreated);
                well.collect()
            }
            Measure::Requests
            | Measure::Mistreated
            | Measure::Answers(_)
            | Measure::Refusals(_)
            | Measure::ServedBy(_)
            | Measure::Dials(_) => requests,
        };
        let (value, seen) = measure_one(measure, &requests, dials);
        verdicts.push(Verdict {
            place,
            text: expectation.text.clone(),
            holds: compare.holds(value, *bound),
            seen,
        });
    }
    verdicts
}

fn measure_one(measure: &Measure, requests: &[&Request], dials: &[Duration]) -> (f64, String) {
    let outcome = |request: &Request| request.ended.as_ref().map(|(_, outcome)| outcome.clone());
    let good = |request: &&&Request| outcome(request).is_some_and(|outcome| outcome.is_good());
    let number = |seen: usize| (count(seen), seen.to_string());
    let time = |seen: Duration| (seen.as_secs_f64(), seconds(seen));
    match measure {
        Measure::Availability => {
            let (all, good) = (requests.len(), requests.iter().filter(good).count());
            let share = if all == 0 { 1.0 } else { count(good) / count(all) };
            (share, format!("{:.2}%, {good} of {all}", share * 100.0))
        }
        Measure::Requests => number(requests.len()),
        Measure::Lost => number(requests.iter().filter(|request| !good(request)).count()),
        Measure::Mistreated => number(requests.iter().filter(|request| request.is_mistreated).count()),
        Measure::Longest => time(
            requests
                .iter()
                .filter_map(|request| took(request))
                .max()
                .unwrap_or_default(),
        ),
        Measure::Outage => time(outage(requests)),
        Measure::Answers(status) => number(count_if(
            requests,
            |outcome| matches!(outcome, Outcome::Answer { status: seen, .. } if seen == status),
        )),
        Measure::Refusals(reason) => number(count_if(
            requests,
            |outcome| matches!(outcome, Outcome::Answer { reason: Some(seen), .. } if seen == reason),
        )),
        Measure::ServedBy(process) => number(
            requests
                .iter()
                .filter(|request| request.delivered.contains(&ProcessId(*process)))
                .count(),
        ),
        Measure::Dials(window) => number(peak(dials, *window)),
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}

fn count_if(requests: &[&Request], wanted: impl Fn(&Outcome) -> bool) -> usize {
    let ended = requests.iter().filter_map(|request| request.ended.as_ref());
    ended.filter(|(_, outcome)| wanted(outcome)).count()
}

fn took(request: &Request) -> Option<Duration> {
    let (at, outcome) = request.ended.as_ref()?;
    (*outcome != Outcome::Stopped).then(|| at.saturating_sub(request.sent))
}

/// The longest time without a good answer while somebody asked.
fn outage(requests: &[&Request]) -> Duration {
    let good = requests.iter().filter_map(|request| {
        let (at, outcome) = request.ended.as_ref()?;
        outcome.is_good().then_some(*at)
    });
    let mut marks: Vec<_> = good.collect();
    marks.extend(requests.iter().map(|request| request.sent).min());
    marks.extend(requests.iter().map(|request| request.sent).max());
    marks.sort();
    let gaps = marks.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

/// The most dials in any window of that length.
fn peak(dials: &[Duration], window: Duration) -> usize {
    let mut dials = dials.to_vec();
    dials.sort();
    let within =
        |(at, first): (usize, &Duration)| dials[at..].partition_point(|dial| *dial < *first + window);
    dials.iter().enumerate().map(within).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_over_any_window() {
        let ms = Duration::from_millis;
        let dials = [0, 90, 95, 180, 300].map(ms);
        assert_eq!(peak(&dials, ms(100)), 3);
        assert_eq!(peak(&dials, ms(1)), 1);
        assert_eq!(peak(&[], ms(1)), 0);
    }
}
