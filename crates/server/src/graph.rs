//! The order of steps: what each waits for.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::error::ApiError;
use crate::wire::model::Step;

/// For each step the places of the steps that it waits for. Without `waitFor` that is every step before it; `-` is none.
///
/// # Errors
/// Two steps with one id, ids that no step has, and steps that wait for each other.
pub(crate) fn order(steps: &[Step]) -> Result<Vec<Vec<usize>>, ApiError> {
    let mut places = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        if let Some(id) = &step.id
            && places.insert(id.as_str(), at).is_some()
        {
            return Err(ApiError::invalid(format!(
                "invalid build: the step ID {id:?} is used more than once"
            )));
        }
    }
    let mut order = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        order.push(match step.wait_for.as_slice() {
            [] => (0..at).collect(),
            [only] if only == "-" => Vec::new(),
            ids => waits(at, ids, &places)?,
        });
    }
    match circle(&order) {
        None => Ok(order),
        Some(at) => Err(ApiError::invalid(format!(
            "invalid build: step {at} waits for itself through the waitFor of other steps"
        ))),
    }
}

fn waits(
    at: usize,
    ids: &[String],
    places: &BTreeMap<&str, usize>,
) -> Result<Vec<usize>, ApiError> {
    let mut waits = BTreeSet::new();
    for id in ids {
        match places.get(id.as_str()) {
            Some(place) => waits.insert(*place),
            None => {
                return Err(ApiError::invalid(format!(
                    "invalid build: step {at} waits for {id:?}, which is the ID of no step"
                )));
            }
        };
    }
    Ok(waits.into_iter().collect())
}

/// A step that cannot ever run.
fn circle(order: &[Vec<usize>]) -> Option<usize> {
    let mut done = vec![false; order.len()];
    loop {
        let ready = |at: &usize| !done[*at] && order[*at].iter().all(|before| done[*before]);
        let next: Vec<usize> = (0..order.len()).filter(ready).collect();
        if next.is_empty() {
            return done.iter().position(|done| !done);
        }
        next.into_iter().for_each(|at| done[at] = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(list: &[(&str, &[&str])]) -> Vec<Step> {
        let step = |(id, waits): &(&str, &[&str])| Step {
            id: (!id.is_empty()).then(|| (*id).to_owned()),
            wait_for: waits.iter().map(|id| (*id).to_owned()).collect(),
            ..Step::default()
        };
        list.iter().map(step).collect()
    }

    #[test]
    fn steps_wait_as_they_say() {
        let list = steps(&[("a", &[]), ("b", &["-"]), ("c", &["b", "b"]), ("", &[])]);
        assert_eq!(
            order(&list).unwrap(),
            [vec![], vec![], vec![1], vec![0, 1, 2]]
        );
        // A step may wait for one that stands below it.
        assert_eq!(
            order(&steps(&[("a", &["b"]), ("b", &["-"])])).unwrap()[0],
            [1]
        );
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let error = |list| order(&steps(list)).unwrap_err().message;
        assert!(error(&[("a", &[]), ("a", &[])]).contains("more than once"));
        assert!(error(&[("a", &["x"])]).contains("the ID of no step"));
        assert!(error(&[("a", &["b"]), ("b", &["a"])]).contains("step 0 waits for itself"));
        assert!(error(&[("a", &["a"])]).contains("waits for itself"));
        // The second waits for the first as it says nothing else.
        assert!(error(&[("a", &["b"]), ("b", &[])]).contains("waits for itself"));
    }
}
