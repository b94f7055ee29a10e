//! Which step waits for which: names to indices, no circle, and what each step can read.

use std::collections::BTreeSet;

use super::context::{Checker, many};
use crate::config::shape;
use crate::diag::code::Code;
use crate::diag::{Diagnostic, Span, suggest};
use crate::syntax::Node;

/// What the rules know of a step before it is compiled.
#[derive(Debug)]
pub(super) struct StepHead<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) node: &'a Node,
}

/// Of each step: its needs, and every step that finishes before it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) needs: Vec<BTreeSet<usize>>,
    pub(super) before: Vec<BTreeSet<usize>>,
}

impl Checker {
    pub(super) fn order(&mut self, steps: &[StepHead<'_>]) -> Order {
        let mut needs: Vec<BTreeSet<usize>> = Vec::new();
        // Where each need is written, for the message about a circle.
        let mut places: Vec<Vec<(usize, Span)>> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let mut own = BTreeSet::new();
            let mut own_places = Vec::new();
            match step.node.get("needs") {
                None => own.extend(index.checked_sub(1)),
                Some(written) => {
                    for item in many(Some(written)) {
                        let Some(text) = item.as_text() else { continue };
                        let found =
                            steps.iter().position(|other| other.name == Some(text.text.as_str()));
                        match found {
                            Some(other) if other == index => self.push(
                                Diagnostic::new(
                                    Code::NeedsCycle,
                                    item.span,
                                    format!("`{}` needs itself", text.text),
                                )
                                .help("remove it"),
                            ),
                            Some(other) => {
                                own.insert(other);
                                own_places.push((other, item.span));
                            }
                            None => {
                                let known: Vec<&str> =
                                    steps.iter().filter_map(|step| step.name).collect();
                                let mut diagnostic = Diagnostic::new(
                                    Code::UnknownReference,
                                    item.span,
                                    format!("there is no step `{}`", text.text),
                                );
                                diagnostic.help = suggest::help(&text.text, known.iter().copied())
                                    .or_else(|| {
                                        let listed = shape::check::listed(&known);
                                        Some(format!("this route's steps are {listed}"))
                                    });
                                self.push(diagnostic);
                            }
                        }
                    }
                }
            }
            needs.push(own);
            places.push(own_places);
        }
        self.circles(steps, &mut needs, &places);
        let before = (0..needs.len()).map(|step| all_before(step, &needs)).collect();
        Order { needs, before }
    }

    /// Reports each circle once, at a need that is written, and cuts it there so that the rest can be checked.
    fn circles(
        &mut self,
        steps: &[StepHead<'_>],
        needs: &mut [BTreeSet<usize>],
        places: &[Vec<(usize, Span)>],
    ) {
        for step in 0..needs.len() {
            for (need, span) in &places[step] {
                if !all_before(*need, needs).contains(&step) {
                    continue;
                }
                needs[step].remove(need);
                let name = |index: usize| steps[index].name.unwrap_or("?");
                self.push(
                    Diagnostic::new(
                        Code::NeedsCycle,
                        *span,
                        format!("`{}` needs `{}`, which needs `{}` in turn", name(step), name(*need), name(step)),
                    )
                    .label("neither could ever start")
                    .help("remove one of the two; a step without `needs` needs the one written above it"),
                );
            }
        }
    }
}

fn all_before(step: usize, needs: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut before = BTreeSet::new();
    let mut open: Vec<usize> = needs[step].iter().copied().collect();
    while let Some(next) = open.pop() {
        if before.insert(next) {
            open.extend(&needs[next]);
        }
    }
    before
}
