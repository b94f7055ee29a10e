//! The parser's events → the tree. Keeps the bounds on size, depth and expansion; knows nothing of what the keys mean.

use std::collections::BTreeMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle, Tag};

use super::mapping::OpenMap;
use super::place::{Style, align};
use super::scalar::{Plain, resolve};
use super::{Node, Parsed, Text, Value, fault};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, FileId, Span};

/// A configuration file is written by people; what is larger is a mistake.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Values of one file, each alias counted as all that it stands for.
const NODES_MAX: usize = 100_000;
pub(super) const DEPTH_MAX: usize = 64;

pub(super) fn parse(file: FileId, text: &str) -> Parsed {
    let mut builder = Builder {
        file,
        text,
        diagnostics: Vec::new(),
        stack: Vec::new(),
        root: None,
        anchors: BTreeMap::new(),
        nodes: 0,
        documents: 0,
    };
    let node = builder.run().then(|| {
        let empty = Node { value: Value::Null, span: Span::new(file, 0..0) };
        builder.root.take().unwrap_or(empty)
    });
    Parsed { node, diagnostics: builder.diagnostics }
}

struct Builder<'t> {
    file: FileId,
    text: &'t str,
    diagnostics: Vec<Diagnostic>,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
    documents: usize,
}

/// A value that aliases may repeat.
struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

/// A list or mapping that is still open.
struct Frame {
    open: Open,
    flow: bool,
    start: usize,
    end: usize,
    anchor: usize,
    nodes_before: usize,
}

enum Open {
    List(Vec<Node>),
    Map(OpenMap),
}

/// Reading cannot go on; the reason is already reported.
struct Stop;

impl<'t> Builder<'t> {
    /// Whether the text could be read to its end.
    fn run(&mut self) -> bool {
        if self.text.len() > BYTES_MAX {
            let message = format!("the file is larger than {} KiB", BYTES_MAX / 1024);
            self.report(
                Code::YamlSyntax,
                0..0,
                message,
                "split it: every route is a file of its own",
            );
            return false;
        }
        let options = granit_parser::options! {
            emit_comments: false,
            emit_unresolved_aliases: true,
            flow_nesting_limit: DEPTH_MAX,
            block_nesting_limit: DEPTH_MAX,
        };
        for next in Parser::new_from_str_with_options(self.text, options) {
            let step = match next {
                Ok((event, span)) => self.event(event, &span),
                Err(error) => {
                    self.diagnostics.push(fault::explain(self.file, self.text, &error));
                    Err(Stop)
                }
            };
            if step.is_err() {
                return false;
            }
        }
        true
    }

    fn event(&mut self, event: Event<'t>, span: &granit_parser::Span) -> Result<(), Stop> {
        let range =
            span.byte_range().expect("the parser reads a string, so every span has its bytes");
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let line = self.marker_line(range.start);
                    self.report(
                        Code::YamlSyntax,
                        line,
                        "a second document starts here",
                        "a file holds one document: move this part into a file of its own, or remove the `---`",
                    );
                    return Err(Stop);
                }
            }
            Event::Scalar(value, style, anchor, tag) => {
                let node = self.scalar(&value, style, tag.as_deref(), range, span);
                self.add(node, anchor, 1)?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.open(Open::List(Vec::new()), style, range, anchor, tag.as_deref(), span)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                if style == StructureStyle::Flow
                    && self.text.get(range.start..).is_some_and(|at| at.starts_with("{{"))
                {
                    self.diagnostics.push(fault::unquoted_template(
                        self.file,
                        self.text,
                        range.start,
                        self.stack.last().is_some_and(|frame| frame.flow),
                    ));
                    return Err(Stop);
                }
                self.open(
                    Open::Map(OpenMap::default()),
                    style,
                    range,
                    anchor,
                    tag.as_deref(),
                    span,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&range)?,
            Event::Alias(anchor) => self.alias(anchor, range)?,
            Event::UnresolvedAlias(name) => {
                self.diagnostics.push(fault::unknown_alias(self.file, range.clone(), &name));
                let node = self.as_written(range);
                self.add(node, 0, 1)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn report(
        &mut self,
        code: Code,
        range: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics
            .push(Diagnostic::new(code, Span::new(self.file, range), message).help(help));
    }

    /// The `---` at or before `at`.
    fn marker_line(&self, at: usize) -> Range<usize> {
        match self.text.get(..at + 3).or(self.text.get(..at)).and_then(|before| before.rfind("---"))
        {
            Some(start) => start..start + 3,
            None => at..at,
        }
    }

    fn scalar(
        &mut self,
        value: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        range: Range<usize>,
        span: &granit_parser::Span,
    ) -> Node {
        if let Some(tag) = tag
            && !tag.is_yaml_core_schema_tag("str")
        {
            let start = span.tag_start().and_then(|mark| mark.byte_offset()).unwrap_or(range.start);
            let range = start.min(range.start)..range.end;
            self.diagnostics.push(fault::tag(self.file, self.text, range.clone()));
            return self.as_written(range);
        }
        let raw = self.text.get(range.clone()).unwrap_or("");
        if style == ScalarStyle::Plain {
            self.diagnostics.extend(fault::swallowed_by_comment(
                self.file,
                self.text,
                range.clone(),
            ));
        }
        let (inner, inner_start, align_style) = match style {
            ScalarStyle::Plain => (raw, range.start, Style::Bare),
            ScalarStyle::SingleQuoted => (unquoted(raw), range.start + 1, Style::Single),
            ScalarStyle::DoubleQuoted => (unquoted(raw), range.start + 1, Style::Double),
            ScalarStyle::Literal | ScalarStyle::Folded => (raw, range.start, Style::Bare),
        };
        let node_range = match style {
            // A block's trailing blank lines belong to nobody.
            ScalarStyle::Literal | ScalarStyle::Folded => {
                range.start..range.start + raw.trim_end().len()
            }
            ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                range.clone()
            }
        };
        let text = || {
            Value::Text(Text {
                text: value.to_owned(),
                quoted: style != ScalarStyle::Plain,
                places: align(value, inner, inner_start, align_style),
            })
        };
        if raw.is_empty() && style == ScalarStyle::Plain && tag.is_none() {
            return Node { value: Value::Null, span: self.place_of_nothing(range) };
        }
        let value = match (style, tag) {
            (ScalarStyle::Plain, None) => match resolve(value) {
                Plain::Null => Value::Null,
                Plain::Bool(value) => Value::Bool(value),
                Plain::Number(number) => Value::Number(number),
                Plain::Text => text(),
                Plain::NoJson => {
                    self.report(
                        Code::YamlSyntax,
                        range.clone(),
                        format!("`{raw}` is a number that JSON cannot carry"),
                        format!("to mean the text, quote it: \"{raw}\""),
                    );
                    text()
                }
            },
            _ => text(),
        };
        Node { value, span: Span::new(self.file, node_range) }
    }

    /// The characters of the file as text: what the writer most likely meant by a misread tag or alias.
    fn as_written(&self, range: Range<usize>) -> Node {
        let text = self.text.get(range.clone()).unwrap_or("").trim_end();
        let span = Span::new(self.file, range.start..range.start + text.len());
        let text = Text { text: text.to_owned(), quoted: false, places: vec![(0, range.start)] };
        Node { value: Value::Text(text), span }
    }

    /// An empty value is shown at its key.
    fn place_of_nothing(&self, range: Range<usize>) -> Span {
        let key = match self.stack.last().map(|frame| &frame.open) {
            Some(Open::Map(map)) => map.waiting_key(),
            Some(Open::List(_)) | None => None,
        };
        key.unwrap_or(Span::new(self.file, range))
    }

    fn open(
        &mut self,
        open: Open,
        style: StructureStyle,
        range: Range<usize>,
        anchor: usize,
        tag: Option<&Tag>,
        span: &granit_parser::Span,
    ) -> Result<(), Stop> {
        if let Some(tag) = tag
            && !tag.is_yaml_core_schema()
        {
            let start = span.tag_start().and_then(|mark| mark.byte_offset()).unwrap_or(range.start);
            self.diagnostics.push(fault::tag(
                self.file,
                self.text,
                start.min(range.start)..range.start,
            ));
        }
        if self.stack.len() >= DEPTH_MAX {
            self.diagnostics.push(fault::too_deep(self.file, range, DEPTH_MAX));
            return Err(Stop);
        }
        let flow = style == StructureStyle::Flow;
        let nodes_before = self.nodes;
        self.stack.push(Frame {
            open,
            flow,
            start: range.start,
            end: range.end,
            anchor,
            nodes_before,
        });
        Ok(())
    }

    fn close(&mut self, range: &Range<usize>) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let end = if frame.flow { range.end } else { frame.end };
        let span = Span::new(self.file, frame.start..end.max(frame.start));
        let value = match frame.open {
            Open::List(items) => Value::List(items),
            Open::Map(map) => Value::Map(map.finish(&mut self.diagnostics)),
        };
        let nodes = self.nodes - frame.nodes_before;
        self.add_counted(Node { value, span }, frame.anchor, 1, nodes + 1)
    }

    fn alias(&mut self, anchor: usize, range: Range<usize>) -> Result<(), Stop> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            self.report(
                Code::YamlSyntax,
                range,
                "this alias stands inside the value that it repeats",
                "a value cannot hold itself: write the part out, or anchor a smaller one",
            );
            return Err(Stop);
        };
        let (node, nodes, depth) = (anchored.node.clone(), anchored.nodes, anchored.depth);
        if self.nodes + nodes > NODES_MAX {
            self.report(
                Code::YamlSyntax,
                range,
                format!("with this alias the file stands for more than {NODES_MAX} values"),
                "aliases of aliases multiply: write out what is needed, or repeat less",
            );
            return Err(Stop);
        }
        if self.stack.len() + depth > DEPTH_MAX {
            self.diagnostics.push(fault::too_deep(self.file, range, DEPTH_MAX));
            return Err(Stop);
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.end = frame.end.max(range.end);
        }
        self.add(node, 0, nodes)
    }

    /// Adds a finished value that stands for `new_nodes` values.
    fn add(&mut self, node: Node, anchor: usize, new_nodes: usize) -> Result<(), Stop> {
        self.add_counted(node, anchor, new_nodes, new_nodes)
    }

    fn add_counted(
        &mut self,
        node: Node,
        anchor: usize,
        new_nodes: usize,
        all_nodes: usize,
    ) -> Result<(), Stop> {
        self.nodes += new_nodes;
        if self.nodes > NODES_MAX {
            self.report(
                Code::YamlSyntax,
                node.span.range(),
                format!("the file holds more than {NODES_MAX} values"),
                "split it: every route is a file of its own; long tables go into a CSV file",
            );
            return Err(Stop);
        }
        if anchor != 0 {
            let depth = depth(&node);
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes: all_nodes, depth });
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        // An alias repeats a value of another place, which may be anywhere above.
        if node.span.start >= frame.start {
            frame.end = frame.end.max(node.span.end);
        }
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map(map) => map.add(node, self.text, &mut self.diagnostics),
        }
        Ok(())
    }
}

fn unquoted(raw: &str) -> &str {
    raw.get(1..raw.len().saturating_sub(1)).unwrap_or("")
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(pairs) => 1 + pairs.iter().map(|pair| depth(&pair.value)).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => 0,
    }
}
