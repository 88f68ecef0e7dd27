//! What must be true: sentences of a small language, so that a reader needs no manual.
//!
//! - `availability of steady >= 99%` is measured over the whole run.
//! - `within 2s of heal: every tunnel is up` must become true in time; `at 5s: …` and `by 9s: …` likewise.

use std::fmt;
use std::time::Duration;

use super::document::Problem;
use super::document::{Fault, Item, Section, Value, duration};

use super::timeline::{Fault as Event, Verb};
use super::{Process, Workload, forms, known_names};

/// One sentence.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// As it is written.
    pub text: String,
    /// What it says.
    pub fact: Fact,
}

/// What a sentence says.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A number over the whole run.
    Measured {
        /// Which.
        measure: Measure,
        /// Of one workload only.
        of: Option<usize>,
        /// How it compares.
        compare: Compare,
        /// With what: a part of 1, a count, or seconds.
        bound: f64,
    },
    /// A condition at a time.
    Timed {
        /// When.
        when: When,
        /// What.
        condition: Condition,
    },
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The part of all requests that the service answered well.
    Availability,
    /// Requests.
    Requests,
    /// Requests that the service did not answer.
    Lost,
    /// Requests that a service or a peer mistreated.
    Mistreated,
    /// The time of the slowest request, in seconds.
    Longest,
    /// The longest time from one good answer to the next, in seconds.
    Outage,
    /// Answers with a status.
    Answers(u16),
    /// Answers by Eddy itself, by reason.
    Refusals(String),
    /// Requests that one initiator's service got.
    ServedBy(usize),
    /// The most dials that all initiators began in any such time.
    Dials(Duration),
}

/// How numbers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `=`
    Equal,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
}

/// When a condition counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// At these instants.
    At(Duration),
    /// At some instant before.
    By(Duration),
    /// At some instant after each of these, and not later than so long.
    Within(Duration, Vec<Start>),
}

/// What a time is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The beginning.
    Begin,
    /// An event of the timeline, by its place.
    Event(usize),
}

/// What can be true at an instant.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Every initiator that runs has as many tunnels as it should, and both ends say so.
    EveryTunnelUp,
    /// There is no tunnel.
    NoTunnelUp,
    /// These processes have so many tunnels between them, in truth and by their own account.
    Tunnels(Vec<usize>, Compare, u64),
    /// A stat of a process.
    Stat(usize, String, Compare, u64),
}

impl Compare {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "=" => Some(Self::Equal),
            ">=" => Some(Self::AtLeast),
            "<=" => Some(Self::AtMost),
            _ => None,
        }
    }

    /// Whether it holds.
    pub fn holds(self, seen: f64, bound: f64) -> bool {
        // Counts and shares of counts: what is equal is exactly equal.
        const EXACT: f64 = 1e-9;
        match self {
            Self::Equal => (seen - bound).abs() < EXACT,
            Self::AtLeast => seen >= bound - EXACT,
            Self::AtMost => seen <= bound + EXACT,
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const MEASURES: &str = "is no expectation; write one of: availability >= 99%, lost requests = 0, requests >= 100, \
    longest request <= 2s, longest outage <= 1s, mistreated requests >= 10, answers 503 = 0, refusals no_tunnel = 0, served by HOST >= 10, \
    dials in 100ms <= 50 (each but the last two may go on: of WORKLOAD), with =, >= or <=";
const CONDITIONS: &str = "is no condition; write one of: every tunnel is up, no tunnel is up, HOST has 2 tunnels, \
    HOST has >= 2 tunnels, HOST stat NAME = 2";
const WHENS: &str = "is no time; write `at 5s`, `by 5s`, `within 2s of heal` or `within 2s of every heal`, with a verb of the timeline";

struct Reader<'a> {
    processes: &'a [Process],
    workload: &'a [Workload],
    timeline: &'a [Event],
    duration: Duration,
}

pub(super) fn read(
    root: &Section<'_>,
    processes: &[Process],
    workload: &[Workload],
    timeline: &[Event],
    duration: Duration,
) -> Result<Vec<Expectation>, Fault> {
    let reader = Reader {
        processes,
        workload,
        timeline,
        duration,
    };
    let list = root.required("expect")?.filled_list()?;
    list.iter().map(|item| reader.sentence(item)).collect()
}

impl Reader<'_> {
    fn sentence(&self, item: &Item<'_>) -> Result<Expectation, Fault> {
        if let Value::Text(text) = &item.tree.value {
            let fact = self.measured(text).map_err(|problem| item.fault(problem))?;
            return Ok(Expectation {
                text: text.clone(),
                fact,
            });
        }
        let sentences = item.named()?;
        let [(when, at, condition)] = &sentences[..] else {
            return Err(item.fault(wrong("a mapping", WHENS)));
        };
        let said = condition.text(forms::words)?;
        let fact = Fact::Timed {
            when: self.when(when).map_err(|problem| Fault {
                at: *at,
                key: item.path.clone(),
                problem: problem.to_string(),
            })?,
            condition: self
                .condition(&said)
                .map_err(|problem| condition.fault(problem))?,
        };
        Ok(Expectation {
            text: format!("{when}: {said}"),
            fact,
        })
    }

    fn measured(&self, text: &str) -> Result<Fact, Problem> {
        let no = || wrong(text, MEASURES);
        let words: Vec<_> = text.split_whitespace().collect();
        let [subject @ .., compare, bound] = &words[..] else {
            return Err(no());
        };
        let compare = Compare::parse(compare).ok_or_else(no)?;
        let (subject, of) = match subject {
            [subject @ .., "of", name] => (subject, Some(self.workload_named(name)?)),
            subject => (subject, None),
        };
        let (measure, bound) = match subject {
            ["availability"] => (Measure::Availability, forms::share(bound)?),
            ["requests"] => (Measure::Requests, count(bound).ok_or_else(no)?),
            ["lost", "requests"] => (Measure::Lost, count(bound).ok_or_else(no)?),
            ["mistreated", "requests"] => (Measure::Mistreated, count(bound).ok_or_else(no)?),
            ["longest", "request"] => (Measure::Longest, duration(bound)?.as_secs_f64()),
            ["longest", "outage"] => (Measure::Outage, duration(bound)?.as_secs_f64()),
            ["answers", status] => {
                let status = status.parse().map_err(|_| no())?;
                (Measure::Answers(status), count(bound).ok_or_else(no)?)
            }
            ["refusals", reason] => (
                Measure::Refusals((*reason).to_owned()),
                count(bound).ok_or_else(no)?,
            ),
            ["served", "by", host] => (Measure::ServedBy(self.one(host)?), count(bound).ok_or_else(no)?),
            ["dials", "in", window] => (Measure::Dials(duration(window)?), count(bound).ok_or_else(no)?),
            _ => return Err(no()),
        };
        Ok(Fact::Measured {
            measure,
            of,
            compare,
            bound,
        })
    }

    fn workload_named(&self, name: &str) -> Result<usize, Problem> {
        let found = self.workload.iter().position(|workload| workload.name == name);
        found.ok_or_else(|| Problem::Unknown {
            what: "workload",
            found: name.to_owned(),
            known: self.workload.iter().map(|w| w.name.clone()).collect(),
        })
    }

    fn group(&self, name: &str) -> Result<Vec<usize>, Problem> {
        let is = |p: &Process| p.name == name || p.group == name;
        let found: Vec<_> = (0..self.processes.len())
            .filter(|&i| is(&self.processes[i]))
            .collect();
        if found.is_empty() {
            return Err(Problem::Unknown {
                what: "host",
                found: name.to_owned(),
                known: known_names(self.processes),
            });
        }
        Ok(found)
    }

    fn one(&self, name: &str) -> Result<usize, Problem> {
        match self.group(name)?[..] {
            [one] => Ok(one),
            _ => Err(wrong(name, "is a group; name one of its hosts, such as GROUP-1")),
        }
    }

    fn when(&self, text: &str) -> Result<When, Problem> {
        let words: Vec<_> = text.split_whitespace().collect();
        match &words[..] {
            ["at", at] => Ok(When::At(self.instant(at)?)),
            ["by", at] => Ok(When::By(self.instant(at)?)),
            ["within", time, "of", rest @ ..] => {
                let time = duration(time)?;
                let (every, verb) = match rest {
                    ["every", verb] => (true, verb),
                    [verb] => (false, verb),
                    _ => return Err(wrong(text, WHENS)),
                };
                Ok(When::Within(time, self.instants(verb, every)?))
            }
            _ => Err(wrong(text, WHENS)),
        }
    }

    fn instant(&self, text: &str) -> Result<Duration, Problem> {
        let at = duration(text)?;
        if at > self.duration {
            return Err(Problem::OutOfRange {
                found: text.to_owned(),
                allowed: format!("0s to the duration, {}s", self.duration.as_secs_f64()),
            });
        }
        Ok(at)
    }

    /// When a verb happens: every time, or the last.
    fn instants(&self, verb: &str, every: bool) -> Result<Vec<Start>, Problem> {
        if verb == "begin" {
            return Ok(vec![Start::Begin]);
        }
        let Some(verb) = Verb::parse(verb) else {
            let known = Verb::all();
            return Err(Problem::Unknown {
                what: "verb",
                found: verb.to_owned(),
                known,
            });
        };
        let all: Vec<_> = self
            .timeline
            .iter()
            .enumerate()
            .filter(|(_, event)| event.verb() == verb)
            .map(|(place, _)| Start::Event(place))
            .collect();
        match all.last() {
            None => Err(wrong(verb.0, "does not happen in the timeline")),
            Some(_) if every => Ok(all),
            Some(&last) => Ok(vec![last]),
        }
    }

    fn condition(&self, text: &str) -> Result<Condition, Problem> {
        let no = || wrong(text, CONDITIONS);
        let words: Vec<_> = text.split_whitespace().collect();
        match &words[..] {
            ["every", "tunnel", "is", "up"] => Ok(Condition::EveryTunnelUp),
            ["no", "tunnel", "is", "up"] => Ok(Condition::NoTunnelUp),
            [host, "has", "no", "tunnel"] => Ok(Condition::Tunnels(self.group(host)?, Compare::Equal, 0)),
            [host, "has", number, "tunnel" | "tunnels"] => Ok(Condition::Tunnels(
                self.group(host)?,
                Compare::Equal,
                number.parse().map_err(|_| no())?,
            )),
            [host, "has", compare, number, "tunnel" | "tunnels"] => Ok(Condition::Tunnels(
                self.group(host)?,
                Compare::parse(compare).ok_or_else(no)?,
                number.parse().map_err(|_| no())?,
            )),
            [host, "stat", name, compare, number] => Ok(Condition::Stat(
                self.one(host)?,
                (*name).to_owned(),
                Compare::parse(compare).ok_or_else(no)?,
                number.parse().map_err(|_| no())?,
            )),
            _ => Err(no()),
        }
    }
}

fn count(text: &str) -> Option<f64> {
    text.parse::<u32>().ok().map(f64::from)
}

fn wrong(found: &str, rule: &'static str) -> Problem {
    Problem::Form {
        found: found.to_owned(),
        rule,
    }
}

#[cfg(test)]
mod tests;
