//! A parsed template written again for the engine, so that it does what the language says: missing data is `none`,
//! numbers that are only shown keep their exact text, and `~` spells values as JSON does. Refuses to know values and names.

use std::fmt::Write;

use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    BinOpKind, CallArg, CompareOpKind, Const, Expr, Filter, IfCond, Stmt, UnaryOpKind,
};

/// The member of a value, exact; nothing there is `none`.
pub(super) const GET: &str = "__get";
/// A value to compute with: floats for exact numbers, `none` for what is missing.
pub(super) const PLAIN: &str = "__plain";
/// The elements of a list, exact.
pub(super) const ITEMS: &str = "__items";
/// The text of a value; `none` has none.
pub(super) const TEXT: &str = "__text";

/// What a namespace may keep over the turns of a loop: no list or object, since those could nest without end.
pub(super) const SCALAR: &str = "__scalar";
/// `first` and `last`, exact.
/// Compares two of a kind: `ORDER('<', other)`.
pub(super) const ORDER: &str = "__order";
pub(super) const FIRST: &str = "__first";
pub(super) const LAST: &str = "__last";

/// What becomes of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It is the result, or becomes text.
    Shown,
    /// A name keeps it: a number stays exact, lists are not looked into.
    Kept,
    Computed,
}

/// Filters that give back what they got, or their argument.
const PASSING: [&str; 4] = ["default", "d", "optional", "raw_url"];
/// Filters that make text of exact values.
const SPELLING: [&str; 11] = [
    "string",
    "tojson",
    "money",
    "minor_units",
    "urlencode",
    "sha256",
    "b64encode",
    "hmac_sha256",
    "join",
    "slug",
    "timestamp",
];

fn ordering(op: BinOpKind) -> Option<&'static str> {
    Some(match op {
        BinOpKind::Lt => "<",
        BinOpKind::Lte => "<=",
        BinOpKind::Gt => ">",
        BinOpKind::Gte => ">=",
        _ => return None,
    })
}

pub(super) fn expression(expr: &Expr<'_>) -> String {
    let mut lower = Lower { out: String::new() };
    lower.expr(expr, Use::Shown);
    lower.out
}

pub(super) fn template(stmt: &Stmt<'_>) -> String {
    let mut lower = Lower { out: String::new() };
    lower.stmt(stmt);
    lower.out
}

struct Lower {
    out: String,
}

impl Lower {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Starts a tag on the line where it stands in the author's text, since errors name lines.
    fn open(&mut self, tag: &str, span: Span) {
        self.push(tag);
        let line = self.out.bytes().filter(|byte| *byte == b'\n').count() + 1;
        for _ in line..usize::from(span.start_line) {
            self.out.push('\n');
        }
        self.out.push(' ');
    }

    fn stmts(&mut self, stmts: &[Stmt<'_>]) {
        stmts.iter().for_each(|stmt| self.stmt(stmt));
    }

    fn stmt(&mut self, stmt: &Stmt<'_>) {
        match stmt {
            Stmt::Template(template) => self.stmts(&template.children),
            Stmt::EmitExpr(emit) => {
                self.open("{{", emit.span());
                self.expr(&emit.expr, Use::Shown);
                self.push(" }}");
            }
            // Of `{% raw %}` too, so no brace may start a tag.
            Stmt::EmitRaw(raw) => self.push(&raw.raw.replace('{', "{{ '{' }}")),
            Stmt::ForLoop(each) => {
                self.open("{% for", each.span());
                self.target(&each.target);
                self.push(" in (");
                self.expr(&each.iter, Use::Computed);
                self.push("|");
                self.push(ITEMS);
                self.push(")");
                if let Some(filter) = &each.filter_expr {
                    self.push(" if ");
                    self.expr(filter, Use::Computed);
                }
                self.push(" %}");
                self.stmts(&each.body);
                if !each.else_body.is_empty() {
                    self.push("{% else %}");
                    self.stmts(&each.else_body);
                }
                self.push("{% endfor %}");
            }
            Stmt::IfCond(cond) => {
                self.open("{% if", cond.span());
                self.branches(cond);
                self.push("{% endif %}");
            }
            Stmt::WithBlock(with) => {
                self.open("{% with", with.span());
                for (at, (target, value)) in with.assignments.iter().enumerate() {
                    if at > 0 {
                        self.push(", ");
                    }
                    self.target(target);
                    self.push(" = ");
                    self.expr(value, Use::Kept);
                }
                self.push(" %}");
                self.stmts(&with.body);
                self.push("{% endwith %}");
            }
            Stmt::Set(set) => {
                self.open("{% set", set.span());
                self.target(&set.target);
                self.push(" = ");
                match &set.target {
                    Expr::GetAttr(_) => {
                        self.piped(SCALAR, |lower| lower.expr(&set.expr, Use::Kept))
                    }
                    _ => self.expr(&set.expr, Use::Kept),
                }
                self.push(" %}");
            }
            Stmt::SetBlock(set) => {
                self.open("{% set", set.span());
                self.target(&set.target);
                if let Some(filter) = &set.filter {
                    self.push(" | ");
                    self.expr(filter, Use::Shown);
                }
                self.push(" %}");
                self.stmts(&set.body);
                self.push("{% endset %}");
            }
            Stmt::FilterBlock(block) => {
                self.open("{% filter", block.span());
                self.expr(&block.filter, Use::Shown);
                self.push(" %}");
                self.stmts(&block.body);
                self.push("{% endfilter %}");
            }
            // The look refuses them before.
            Stmt::AutoEscape(_) | Stmt::Do(_) => {}
        }
    }

    fn branches(&mut self, cond: &IfCond<'_>) {
        self.expr(&cond.expr, Use::Computed);
        self.push(" %}");
        self.stmts(&cond.true_body);
        match cond.false_body.as_slice() {
            [] => {}
            [Stmt::IfCond(next)] => {
                self.open("{% elif", next.span());
                self.branches(next);
            }
            other => {
                self.push("{% else %}");
                self.stmts(other);
            }
        }
    }

    /// `a`, `a, b`, `(a, b), c`, `ns.a`.
    fn target(&mut self, target: &Expr<'_>) {
        let items = match target {
            Expr::Var(var) => return self.push(var.id),
            Expr::GetAttr(get) => {
                self.target(&get.expr);
                self.push(".");
                return self.push(get.name);
            }
            Expr::List(list) => &list.items,
            Expr::Tuple(tuple) => &tuple.items,
            other => return self.expr(other, Use::Computed),
        };
        for (at, item) in items.iter().enumerate() {
            let nested = matches!(item, Expr::List(_) | Expr::Tuple(_));
            self.push(if at > 0 { ", " } else { "" });
            self.push(if nested { "(" } else { "" });
            self.target(item);
            self.push(if nested { ")" } else { "" });
        }
        // `for a, in b` takes lists of one element apart.
        self.push(if items.len() == 1 { "," } else { "" });
    }

    fn expr(&mut self, expr: &Expr<'_>, how: Use) {
        match expr {
            Expr::Const(value) => self.constant(value),
            Expr::Var(var) if how == Use::Computed => {
                self.piped(PLAIN, |lower| lower.push(var.id));
            }
            Expr::Var(var) => self.push(var.id),
            Expr::GetAttr(_) | Expr::GetItem(_) if how == Use::Computed => {
                self.piped(PLAIN, |lower| lower.chain(expr));
            }
            Expr::GetAttr(get) => {
                self.piped(GET, |lower| lower.chain(&get.expr));
                self.argument(|lower| lower.text(get.name));
            }
            Expr::GetItem(get) => {
                self.piped(GET, |lower| lower.chain(&get.expr));
                self.argument(|lower| lower.expr(&get.subscript_expr, Use::Computed));
            }
            Expr::UnaryOp(op) => {
                self.push(match op.op {
                    UnaryOpKind::Not => "(not ",
                    UnaryOpKind::Neg => "(-",
                });
                self.expr(&op.expr, Use::Computed);
                self.push(")");
            }
            Expr::BinOp(op) if ordering(op.op).is_some() => {
                // A filter, so that texts and numbers can be told apart.
                self.push("(");
                self.expr(&op.left, Use::Computed);
                self.push("|");
                self.push(ORDER);
                self.push("('");
                self.push(ordering(op.op).unwrap_or_default());
                self.push("', ");
                self.expr(&op.right, Use::Computed);
                self.push("))");
            }
            Expr::BinOp(op) => {
                self.push("(");
                self.binary(op.op, &op.left, &op.right, how);
                self.push(")");
            }
            Expr::Compare(compare) => {
                self.push("(");
                self.expr(&compare.expr, Use::Computed);
                for op in &compare.ops {
                    self.push(match op.op {
                        CompareOpKind::Eq => " == ",
                        CompareOpKind::Ne => " != ",
                        CompareOpKind::Lt => " < ",
                        CompareOpKind::Lte => " <= ",
                        CompareOpKind::Gt => " > ",
                        CompareOpKind::Gte => " >= ",
                        CompareOpKind::In => " in ",
                        CompareOpKind::NotIn => " not in ",
                    });
                    self.expr(&op.expr, Use::Computed);
                }
                self.push(")");
            }
            Expr::IfExpr(cond) => {
                self.push("(");
                self.expr(&cond.true_expr, how);
                self.push(" if ");
                self.expr(&cond.test_expr, Use::Computed);
                self.push(" else ");
                match &cond.false_expr {
                    Some(other) => self.expr(other, how),
                    None => self.push("none"),
                }
                self.push(")");
            }
            Expr::Filter(filter) => self.filter(filter, how),
            Expr::Test(test) => {
                self.push("(");
                self.expr(&test.expr, Use::Computed);
                self.push(" is ");
                self.push(test.name);
                self.args(&test.args, Use::Computed);
                self.push(")");
            }
            Expr::Call(call) => {
                // The look lets named functions alone pass.
                if let Expr::Var(function) = &call.expr {
                    self.push(function.id);
                }
                self.push("(");
                self.arguments(&call.args, Use::Computed);
                self.push(")");
            }
            Expr::List(list) => {
                self.push("[");
                self.list(&list.items, how);
                self.push("]");
            }
            Expr::Tuple(tuple) => {
                self.push("(");
                self.list(&tuple.items, how);
                self.push(")");
            }
            Expr::Map(map) => {
                self.push("{");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.expr(key, Use::Computed);
                    self.push(": ");
                    self.expr(value, inside(how));
                    self.push(", ");
                }
                self.push("}");
            }
            Expr::Slice(slice) => {
                self.expr(&slice.expr, Use::Computed);
                self.push("[");
                for (at, part) in [&slice.start, &slice.stop, &slice.step].into_iter().enumerate() {
                    self.push(if at > 0 { ":" } else { "" });
                    part.iter().for_each(|part| self.expr(part, Use::Computed));
                }
                self.push("]");
            }
        }
    }

    fn list(&mut self, items: &[Expr<'_>], how: Use) {
        for item in items {
            self.expr(item, inside(how));
            self.push(", ");
        }
    }

    /// `(value|filter`, to be closed here or by `argument`.
    fn piped(&mut self, filter: &str, value: impl FnOnce(&mut Self)) {
        self.push("(");
        value(self);
        self.push("|");
        self.push(filter);
        self.push(")");
    }

    /// Reopens what `piped` closed.
    fn argument(&mut self, argument: impl FnOnce(&mut Self)) {
        self.out.pop();
        self.push("(");
        argument(self);
        self.push("))");
    }

    /// A chain for the engine itself, which may pass through nothing.
    fn chain(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Var(var) => self.push(var.id),
            Expr::GetAttr(get) => {
                self.chain(&get.expr);
                self.push(".");
                self.push(get.name);
            }
            Expr::GetItem(get) => {
                self.chain(&get.expr);
                self.push("[");
                self.expr(&get.subscript_expr, Use::Computed);
                self.push("]");
            }
            other => self.expr(other, Use::Computed),
        }
    }

    fn binary(&mut self, op: BinOpKind, left: &Expr<'_>, right: &Expr<'_>, how: Use) {
        let (sign, how) = match op {
            BinOpKind::ScAnd => (" and ", how),
            BinOpKind::ScOr => (" or ", how),
            BinOpKind::Concat => (" ~ ", Use::Shown),
            BinOpKind::Eq => (" == ", Use::Computed),
            BinOpKind::Ne => (" != ", Use::Computed),
            BinOpKind::Lt => (" < ", Use::Computed),
            BinOpKind::Lte => (" <= ", Use::Computed),
            BinOpKind::Gt => (" > ", Use::Computed),
            BinOpKind::Gte => (" >= ", Use::Computed),
            BinOpKind::Add => (" + ", Use::Computed),
            BinOpKind::Sub => (" - ", Use::Computed),
            BinOpKind::Mul => (" * ", Use::Computed),
            BinOpKind::Div => (" / ", Use::Computed),
            BinOpKind::FloorDiv => (" // ", Use::Computed),
            BinOpKind::Rem => (" % ", Use::Computed),
            BinOpKind::Pow => (" ** ", Use::Computed),
            BinOpKind::In => (" in ", Use::Computed),
        };
        match left {
            // A long `a + b + c` leans to the left: without parentheses it nests no deeper than it was written.
            Expr::BinOp(inner) if leans(inner.op, op) => {
                self.binary(inner.op, &inner.left, &inner.right, how);
            }
            other => self.operand(op, other, how),
        }
        self.push(sign);
        self.operand(op, right, how);
    }

    fn operand(&mut self, op: BinOpKind, expr: &Expr<'_>, how: Use) {
        if matches!(op, BinOpKind::Concat) {
            self.piped(TEXT, |lower| lower.expr(expr, how));
        } else {
            self.expr(expr, how);
        }
    }

    fn filter(&mut self, filter: &Filter<'_>, how: Use) {
        let of_value = has_value(filter);
        self.push(if of_value { "(" } else { "" });
        self.pipeline(filter, how);
        self.push(if of_value { ")" } else { "" });
    }

    /// One filter after the other, nested no deeper than they were written.
    fn pipeline(&mut self, filter: &Filter<'_>, how: Use) {
        let name = filter.name;
        let (operand, args) = if PASSING.contains(&name) {
            (how, how)
        } else if SPELLING.contains(&name) {
            (Use::Shown, Use::Shown)
        } else {
            (Use::Computed, Use::Computed)
        };
        // These find an exact number; to compute, it becomes a float like any other.
        let finds = matches!(name, "first" | "last") && how == Use::Computed;
        match &filter.expr {
            Some(Expr::Filter(inner)) => self.pipeline(inner, operand),
            Some(expr) => self.expr(expr, operand),
            None => {}
        }
        self.push(if filter.expr.is_some() { "|" } else { "" });
        self.push(match name {
            "first" => FIRST,
            "last" => LAST,
            other => other,
        });
        self.args(&filter.args, args);
        if finds {
            self.push("|");
            self.push(PLAIN);
        }
    }

    fn args(&mut self, args: &[CallArg<'_>], how: Use) {
        if !args.is_empty() {
            self.push("(");
            self.arguments(args, how);
            self.push(")");
        }
    }

    fn arguments(&mut self, args: &[CallArg<'_>], how: Use) {
        for (at, arg) in args.iter().enumerate() {
            self.push(if at > 0 { ", " } else { "" });
            match arg {
                CallArg::Pos(expr) => self.expr(expr, how),
                CallArg::Kwarg(name, expr) => {
                    self.push(name);
                    self.push("=");
                    self.expr(expr, how);
                }
                CallArg::PosSplat(expr) => {
                    self.push("*");
                    self.expr(expr, Use::Computed);
                }
                CallArg::KwargSplat(expr) => {
                    self.push("**");
                    self.expr(expr, Use::Computed);
                }
            }
        }
    }

    fn constant(&mut self, constant: &Const) {
        let value = &constant.value;
        if let Some(text) = value.as_str() {
            self.text(text);
        } else if value.is_none() || value.is_undefined() {
            self.push("none");
        } else if let Ok(flag) = bool::try_from(value.clone())
            && !value.is_number()
        {
            self.push(if flag { "true" } else { "false" });
        } else if value.is_integer() {
            self.push(&value.to_string());
        } else {
            let float = f64::try_from(value.clone()).unwrap_or(f64::INFINITY);
            let written = if float.is_finite() {
                write!(self.out, "{float:?}")
            } else {
                write!(self.out, "1e999")
            };
            written.expect("a String takes every text");
        }
    }

    /// A literal: the engine reads JSON's escapes.
    fn text(&mut self, text: &str) {
        let literal = serde_json::Value::from(text).to_string();
        self.push(&literal);
    }
}

/// The filters of `{% filter upper | trim %}` and `{% set a | upper %}` have none: a block stands in its place.
fn has_value(filter: &Filter<'_>) -> bool {
    match &filter.expr {
        None => false,
        Some(Expr::Filter(inner)) => has_value(inner),
        Some(_) => true,
    }
}

/// The elements of a list or object that is used in this way.
fn inside(how: Use) -> Use {
    match how {
        Use::Shown => Use::Shown,
        Use::Kept | Use::Computed => Use::Computed,
    }
}

fn leans(inner: BinOpKind, outer: BinOpKind) -> bool {
    matches!(
        (inner, outer),
        (BinOpKind::Concat, BinOpKind::Concat)
            | (BinOpKind::Add | BinOpKind::Sub, BinOpKind::Add | BinOpKind::Sub)
            | (BinOpKind::Mul, BinOpKind::Mul)
            | (BinOpKind::ScAnd, BinOpKind::ScAnd)
            | (BinOpKind::ScOr, BinOpKind::ScOr)
    )
}
