//! A static look at a parsed template: which names it reads, whether they, its filters, tests and functions
//! exist. Refuses to know values.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::machinery::Span;
use minijinja::machinery::ast::{CallArg, Expr, Stmt};

use super::environment::{FILTERS, FUNCTIONS, TESTS};
use super::names::{Fault, FaultKind, Names, Reads};
use super::value::PathKey;

/// Filters that may stand only at the end of an expression, since they say what becomes of it.
const LAST_ONLY: [&str; 2] = ["optional", "raw_url"];

/// What one look found. Ranges are in the bytes of the looked-at text.
#[derive(Default)]
pub(super) struct Look {
    pub(super) faults: Vec<Fault>,
    pub(super) reads: Reads,
}

pub(super) struct Looker<'n> {
    names: &'n Names,
    locals: Vec<BTreeSet<String>>,
    pub(super) found: Look,
}

fn range(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

impl<'n> Looker<'n> {
    pub(super) fn new(names: &'n Names) -> Self {
        Self { names, locals: vec![BTreeSet::new()], found: Look::default() }
    }

    fn fault(&mut self, kind: FaultKind, span: Span, message: String, help: Option<String>) {
        self.found.faults.push(Fault { kind, message, range: range(span), help });
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|scope| scope.contains(name))
    }

    fn declare(&mut self, target: &Expr<'_>) {
        match target {
            Expr::Var(var) => {
                if let Some(scope) = self.locals.last_mut() {
                    scope.insert(var.id.to_owned());
                }
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.declare(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.declare(item)),
            other => self.expr(other),
        }
    }

    fn scope(&mut self, body: impl FnOnce(&mut Self)) {
        self.locals.push(BTreeSet::new());
        body(self);
        self.locals.pop();
    }

    /// The whole of a `{{ }}` or condition: the outermost filters say what becomes of the value.
    pub(super) fn whole(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Filter(filter) if LAST_ONLY.contains(&filter.name) => {
                self.args(&filter.args);
                if let Some(inner) = &filter.expr {
                    self.whole(inner);
                }
            }
            other => self.expr(other),
        }
    }

    pub(super) fn stmts(&mut self, stmts: &[Stmt<'_>]) {
        stmts.iter().for_each(|stmt| self.stmt(stmt));
    }

    pub(super) fn stmt(&mut self, stmt: &Stmt<'_>) {
        match stmt {
            Stmt::Template(template) => self.stmts(&template.children),
            Stmt::EmitExpr(emit) => self.expr(&emit.expr),
            Stmt::EmitRaw(_) => {}
            Stmt::ForLoop(each) => {
                self.expr(&each.iter);
                if each.recursive {
                    let help = Some("write the loop without `recursive`".to_owned());
                    let message = "recursive loops are not part of templates here".to_owned();
                    self.fault(FaultKind::Syntax, each.span(), message, help);
                }
                self.scope(|look| {
                    look.declare(&each.target);
                    if let Some(scope) = look.locals.last_mut() {
                        scope.insert("loop".to_owned());
                    }
                    each.filter_expr.iter().for_each(|filter| look.expr(filter));
                    look.stmts(&each.body);
                });
                self.scope(|look| look.stmts(&each.else_body));
            }
            Stmt::IfCond(cond) => {
                self.expr(&cond.expr);
                // What one branch sets may be read after it, as in Jinja.
                self.stmts(&cond.true_body);
                self.stmts(&cond.false_body);
            }
            Stmt::WithBlock(with) => self.scope(|look| {
                for (target, value) in &with.assignments {
                    look.expr(value);
                    look.declare(target);
                }
                look.stmts(&with.body);
            }),
            Stmt::Set(set) => {
                self.expr(&set.expr);
                if !matches!(set.target, Expr::GetAttr(_)) && names_a_member(&set.target) {
                    let help = Some("set one after the other".to_owned());
                    let message = "a member of a namespace is set by itself".to_owned();
                    self.fault(FaultKind::Syntax, set.span(), message, help);
                }
                self.declare(&set.target);
            }
            Stmt::SetBlock(set) => {
                set.filter.iter().for_each(|filter| self.expr(filter));
                self.scope(|look| look.stmts(&set.body));
                self.declare(&set.target);
            }
            Stmt::FilterBlock(block) => {
                self.expr(&block.filter);
                self.scope(|look| look.stmts(&block.body));
            }
            Stmt::AutoEscape(block) => {
                let message = "`autoescape` is not part of templates here".to_owned();
                self.fault(FaultKind::Syntax, block.span(), message, None);
            }
            Stmt::Do(call) => self.fault(
                FaultKind::Syntax,
                call.span(),
                "`do` is not part of templates here".to_owned(),
                None,
            ),
        }
    }

    fn args(&mut self, args: &[CallArg<'_>]) {
        for arg in args {
            match arg {
                CallArg::Pos(expr)
                | CallArg::Kwarg(_, expr)
                | CallArg::PosSplat(expr)
                | CallArg::KwargSplat(expr) => self.expr(expr),
            }
        }
    }

    pub(super) fn expr(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Const(_) => {}
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => self.chain(expr),
            Expr::UnaryOp(op) => self.expr(&op.expr),
            Expr::BinOp(op) => {
                self.expr(&op.left);
                self.expr(&op.right);
            }
            Expr::Compare(compare) => {
                self.expr(&compare.expr);
                compare.ops.iter().for_each(|op| self.expr(&op.expr));
            }
            Expr::IfExpr(cond) => {
                self.expr(&cond.test_expr);
                self.expr(&cond.true_expr);
                cond.false_expr.iter().for_each(|expr| self.expr(expr));
            }
            Expr::Filter(filter) => {
                let name = filter.name;
                if LAST_ONLY.contains(&name) {
                    let message =
                        format!("`{name}` must be the last filter of a whole `{{{{ }}}}`");
                    self.fault(FaultKind::Syntax, filter.span(), message, None);
                } else {
                    self.known("filter", name, &FILTERS, filter.span());
                }
                self.names_of_filters(name, &filter.args, filter.span());
                filter.expr.iter().for_each(|expr| self.expr(expr));
                self.args(&filter.args);
            }
            Expr::Test(test) => {
                self.known("test", test.name, &TESTS, test.span());
                self.expr(&test.expr);
                self.args(&test.args);
            }
            Expr::Call(call) => {
                match &call.expr {
                    Expr::Var(var) => self.known("function", var.id, &FUNCTIONS, var.span()),
                    other => self.fault(
                        FaultKind::Syntax,
                        other.span(),
                        "values have no methods".to_owned(),
                        Some("use a filter: `value | length`".to_owned()),
                    ),
                }
                self.args(&call.args);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.expr(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.expr(item)),
            Expr::Map(map) => {
                map.keys.iter().for_each(|key| self.expr(key));
                map.values.iter().for_each(|value| self.expr(value));
            }
            Expr::Slice(slice) => {
                self.expr(&slice.expr);
                for part in [&slice.start, &slice.stop, &slice.step].into_iter().flatten() {
                    self.expr(part);
                }
            }
        }
    }

    /// `map("upper")` and `select("odd")` name filters and tests in texts.
    fn names_of_filters(&mut self, name: &str, args: &[CallArg<'_>], span: Span) {
        let at = match name {
            "map" | "select" | "reject" => 0,
            "selectattr" | "rejectattr" => 1,
            _ => return,
        };
        if let Some(CallArg::Pos(Expr::Const(text))) = args.get(at)
            && let Some(text) = text.value.as_str()
        {
            match name {
                "map" => self.known("filter", text, &FILTERS, span),
                _ => self.known("test", text, &TESTS, span),
            }
        }
    }

    fn known(&mut self, what: &str, name: &str, all: &[&str], span: Span) {
        if !all.contains(&name) {
            let help = nearest(name, all.iter().copied());
            self.fault(FaultKind::UnknownName, span, format!("unknown {what} `{name}`"), help);
        }
    }

    /// `root.a.b[0].c`, or a chain on something else.
    fn chain(&mut self, expr: &Expr<'_>) {
        let mut keys = Vec::new();
        let mut at = expr;
        let root = loop {
            match at {
                Expr::Var(var) => break Some(var),
                Expr::GetAttr(get) => {
                    keys.push((Some(get.name.to_owned()), get.span()));
                    at = &get.expr;
                }
                Expr::GetItem(get) => {
                    let name = match &get.subscript_expr {
                        Expr::Const(text) => text.value.as_str().map(str::to_owned),
                        other => {
                            self.expr(other);
                            None
                        }
                    };
                    keys.push((name, get.span()));
                    at = &get.expr;
                }
                other => {
                    self.expr(other);
                    break None;
                }
            }
        };
        keys.reverse();
        let Some(root) = root else { return };
        if self.is_local(root.id) {
            return;
        }
        let Some(known) = self.names.roots.get(root.id).copied() else {
            let roots = self.names.roots.iter().copied();
            let message = format!("unknown name `{}`", root.id);
            let help = nearest(root.id, roots.clone())
                .or_else(|| Some(format!("known here: {}", roots.collect::<Vec<_>>().join(", "))));
            return self.fault(FaultKind::UnknownName, root.span(), message, help);
        };
        self.found.reads.roots.insert(known.to_owned());
        // A postfix knows where it ends, but not where its chain starts.
        for (_, span) in &mut keys {
            span.start_offset = root.span().start_offset;
        }
        self.members(known, root.span(), &keys);
    }

    fn members(&mut self, root: &str, at: Span, keys: &[(Option<String>, Span)]) {
        let first = keys.first().and_then(|(name, span)| name.as_ref().map(|name| (name, *span)));
        let names = self.names;
        match root {
            "fields" | "secrets" | "env" => {
                let known = match root {
                    "fields" => &names.fields,
                    "secrets" => &names.secrets,
                    _ => &names.env,
                };
                match first {
                    Some((name, span)) => {
                        if self.member(root, name, span, known.iter().map(String::as_str)) {
                            let reads = &mut self.found.reads;
                            let set = match root {
                                "fields" => &mut reads.fields,
                                "secrets" => &mut reads.secrets,
                                _ => &mut reads.env,
                            };
                            set.insert(name.clone());
                        }
                    }
                    // Read as a whole or by a computed name: all of them. A secret must be named.
                    None if root == "secrets" => self.fault(
                        FaultKind::Syntax,
                        at,
                        "a secret must be read by its name".to_owned(),
                        Some("write `secrets.NAME`".to_owned()),
                    ),
                    None if root == "fields" => {
                        self.found.reads.fields.extend(names.fields.iter().cloned());
                    }
                    None => self.found.reads.env.extend(names.env.iter().cloned()),
                }
            }
            "steps" => {
                let Some((step, span)) = first else {
                    for (step, saved) in &names.steps {
                        let all = saved.iter().map(|name| (step.clone(), name.clone()));
                        self.found.reads.steps.extend(all);
                    }
                    return;
                };
                if !self.member("steps", step, span, names.steps.keys().map(String::as_str)) {
                    return;
                }
                let Some(saved) = names.steps.get(step) else { return };
                if let Some((Some(name), span)) = keys.get(1) {
                    let known = saved.iter().map(String::as_str).chain(["status"]);
                    if self.member(&format!("steps.{step}"), name, *span, known) {
                        self.found.reads.steps.insert((step.clone(), name.clone()));
                    }
                } else {
                    let all = saved.iter().map(|name| (step.clone(), name.clone()));
                    self.found.reads.steps.extend(all);
                }
            }
            "event" => {
                if let Some((name, span)) = first {
                    let known = ["id", "type", "source", "occurred_at", "received_at"];
                    self.member("event", name, span, known.into_iter());
                }
            }
            "delivery" => {
                if let Some((name, span)) = first {
                    self.member("delivery", name, span, ["id", "attempt"].into_iter());
                }
            }
            _ => {}
        }
    }

    fn member<'a>(
        &mut self,
        root: &str,
        name: &str,
        span: Span,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> bool {
        if known.clone().any(|one| one == name) {
            return true;
        }
        let help = nearest(name, known.clone()).or_else(|| {
            let known: Vec<_> = known.take(20).collect();
            let declare = match root {
                "fields" => format!("name it in the route: `fields: {{ {name}: $.… }}`"),
                "secrets" | "env" => {
                    format!("name it in the route: `{root}: {{ {name}: {{ env: VARIABLE }} }}`")
                }
                _ => String::new(),
            };
            match (known.is_empty(), declare.is_empty()) {
                (true, true) => None,
                (true, false) => Some(declare),
                (false, true) => Some(format!("`{root}` has: {}", known.join(", "))),
                (false, false) => Some(format!("`{root}` has: {}; {declare}", known.join(", "))),
            }
        });
        self.fault(FaultKind::UnknownName, span, format!("`{root}` has no `{name}`"), help);
        false
    }
}

fn names_a_member(target: &Expr<'_>) -> bool {
    match target {
        Expr::GetAttr(_) => true,
        Expr::List(list) => list.items.iter().any(names_a_member),
        Expr::Tuple(tuple) => tuple.items.iter().any(names_a_member),
        _ => false,
    }
}

/// A path through data and names alone, which needs no engine and keeps numbers exact.
pub(super) fn plain_path(expr: &Expr<'_>) -> Option<(String, Vec<PathKey>)> {
    let mut keys = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::Var(var) => {
                keys.reverse();
                return Some((var.id.to_owned(), keys));
            }
            Expr::GetAttr(get) => {
                keys.push(PathKey::Name(get.name.to_owned()));
                at = &get.expr;
            }
            Expr::GetItem(get) => {
                let key = get.subscript_expr.as_const()?;
                keys.push(match key.as_str() {
                    Some(name) => PathKey::Name(name.to_owned()),
                    None if key.is_integer() => PathKey::Index(key.as_i64()?),
                    None => return None,
                });
                at = &get.expr;
            }
            _ => return None,
        }
    }
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|one| (strsim::damerau_levenshtein(name, one), one))
        .filter(|(distance, one)| *distance <= 2.max(one.chars().count() / 3))
        .min()
        .map(|(_, one)| format!("did you mean `{one}`?"))
}
