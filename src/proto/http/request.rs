//! A complete request head, owned.

use core::fmt;

use super::{Authority, HeadScan, METHODS, Refusal, trim_ows};
use crate::limits::Limits;
use crate::proto::target::{Parameters, Query};

/// Field slots that httparse gets on the stack; a configuration with a higher limit costs an allocation.
const FIELDS_ON_STACK: usize = 64;

/// Fields that must not come twice: two recipients could believe different ones (RFC 9112 §3.2, RFC 6455 §11.3).
const ONCE: [&str; 3] = ["host", "sec-websocket-key", "sec-websocket-version"];

/// A request head: one copy of its bytes, and where in them its parts are.
///
/// `Debug` shows neither the query nor any field value: they carry tokens, and what is shown gets logged.
#[derive(Clone)]
pub struct Request {
    head: Box<[u8]>,
    fields: Box<[Field]>,
    // Invariant of every span: it lies within `head`; `method` and `target` are UTF-8, `host` is an authority.
    method: Span,
    target: Span,
    host: Option<Span>,
    parameters: Parameters,
    is_http10: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u16,
    end: u16,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: Span,
    value: Span,
}

impl Request {
    /// Reads a complete head, exactly as long as [`HeadScan`] said, under the same limits.
    ///
    /// The target may be in origin form or, as RFC 9112 §3.2.2 demands, in absolute form with `http` or `https`.
    /// Absolute form is reduced to origin form, and its host then counts instead of the `Host` field. `*` is accepted
    /// for OPTIONS only.
    ///
    /// # Errors
    /// Whatever [`HeadScan::scan`] refuses; 400 (`bad_target`, `bad_host`, `repeated_field`,
    /// `too_many_parameters`), and 405 for CONNECT.
    pub(crate) fn parse(head: &[u8], limits: &Limits) -> Result<Request, Refusal> {
        // The head is scanned once more, so that a `Request` is strict without any care of its caller: httparse alone
        // accepts bare line feeds and several empty lines.
        if HeadScan::default().scan(head, limits)? != Some(head.len()) {
            return Err(Refusal::bad_request("bad_request", "Send a complete request head, ended by an empty line."));
        }
        let most_fields = limits.max_head_fields.min(head.len());
        let mut on_stack = [httparse::EMPTY_HEADER; FIELDS_ON_STACK];
        let mut on_heap = Vec::new();
        let slots = match on_stack.get_mut(..most_fields) {
            Some(slots) => slots,
            None => {
                on_heap.resize(most_fields, httparse::EMPTY_HEADER);
                on_heap.as_mut_slice()
            }
        };
        let mut parsed = httparse::Request::new(slots);
        // The scan has left one thing for httparse to refuse: a target that is not UTF-8.
        let complete = parsed.parse(head).is_ok_and(|status| status.is_complete());
        let mut request = if complete { Request::copy(head, &parsed) } else { None }
            .ok_or_else(|| bad_target("The request target is not UTF-8; percent-encode it as UTF-8."))?;
        request.reduce_target()?;
        request.check_fields()?;
        request.parameters = Parameters::scan(request.query().raw())?;
        Ok(request)
    }

    fn copy(head: &[u8], parsed: &httparse::Request<'_, '_>) -> Option<Request> {
        let mut fields = Vec::with_capacity(parsed.headers.len());
        for header in parsed.headers.iter() {
            let value = trim_ows(header.value);
            fields.push(Field { name: Span::of(head, header.name.as_bytes())?, value: Span::of(head, value)? });
        }
        Some(Request {
            head: head.into(),
            fields: fields.into(),
            method: Span::of(head, parsed.method?.as_bytes())?,
            target: Span::of(head, parsed.path?.as_bytes())?,
            host: None,
            parameters: Parameters::default(),
            is_http10: parsed.version == Some(0),
        })
    }

    /// RFC 9112 §3.2: which of the four forms the target has.
    fn reduce_target(&mut self) -> Result<(), Refusal> {
        if self.method() == "CONNECT" {
            return Err(Refusal::method_not_allowed(METHODS));
        }
        match self.target() {
            target if target.starts_with('/') => Ok(()),
            "*" if self.method() == "OPTIONS" => Ok(()),
            _ => self
                .reduce_absolute_target()
                .ok_or_else(|| bad_target("The request target must be a path that begins with /, such as /chat.")),
        }
    }

    /// RFC 9112 §3.2.2: `http://host/path` becomes `/path`, and `host` counts instead of the field `Host`.
    fn reduce_absolute_target(&mut self) -> Option<()> {
        let (scheme, rest) = self.target().split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return None;
        }
        let host_length = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at_checked(host_length)?;
        Authority::parse(host.as_bytes())?;
        let mut host = Span::of(&self.head, host.as_bytes())?;
        if !path.starts_with('/') {
            // An empty path means `/`. The host moves one byte to the left, over the second slash of `://`, and its
            // last byte becomes the slash that is missing.
            let range = usize::from(host.start)..usize::from(host.end);
            host = Span { start: host.start.checked_sub(1)?, end: host.end.checked_sub(1)? };
            self.head.copy_within(range, usize::from(host.start));
            *self.head.get_mut(usize::from(host.end))? = b'/';
        }
        self.host = Some(host);
        self.target.start = host.end;
        Some(())
    }

    fn check_fields(&mut self) -> Result<(), Refusal> {
        for name in ONCE {
            if self.headers(name).nth(1).is_some() {
                let detail = format!("The field {name} came more than once; send it once.");
                return Err(Refusal::bad_request("repeated_field", detail));
            }
        }
        // RFC 9112 §3.2: a request without Host, or with a faulty one, is 400; before HTTP/1.1 it may be missing.
        let host = match self.fields.iter().find(|field| self.is_named(field, "host")) {
            Some(field) if Authority::parse(self.bytes(field.value)).is_some() => Some(field.value),
            None if self.is_http10 => None,
            _ => {
                return Err(Refusal::bad_request(
                    "bad_host",
                    "Send one Host field with a host name and, if need be, a port.",
                ));
            }
        };
        self.host = self.host.or(host);
        Ok(())
    }

    /// Bytes of heap memory that it takes, itself in its box included.
    pub(crate) fn held(&self) -> usize {
        size_of::<Request>() + self.head.len() + size_of_val(&*self.fields)
    }

    /// The method as it was sent; methods are case-sensitive (RFC 9110 §9.1).
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// The target in origin form: path and query, still percent-encoded; `*` for `OPTIONS *`.
    ///
    /// It may hold UTF-8 that should have been percent-encoded: `curl localhost:8080/größe` sends that.
    pub fn target(&self) -> &str {
        self.text(self.target)
    }

    /// What comes before the first `?` of the target, still percent-encoded.
    pub fn path(&self) -> &str {
        self.target().split_once('?').map_or(self.target(), |(path, _)| path)
    }

    /// What comes after the first `?` of the target; empty without one.
    pub fn query(&self) -> Query<'_> {
        Query::new(self.target().split_once('?').map_or("", |(_, query)| query), &self.parameters)
    }

    /// The host that the request is for: of an absolute target, else of `Host`; `None` only in HTTP/1.0.
    pub(crate) fn authority(&self) -> Option<Authority<'_>> {
        self.host.and_then(|host| Authority::parse(self.bytes(host)))
    }

    /// Whether this is HTTP/1.0, which knows neither chunks nor, without asking, persistent connections.
    pub fn is_http10(&self) -> bool {
        self.is_http10
    }

    /// Whether the connection ends after the answer (RFC 9112 §9.3): the peer said so, or speaks HTTP/1.0, whose
    /// `keep-alive` is not honoured.
    pub(crate) fn wants_close(&self) -> bool {
        self.is_http10 || self.has_token("connection", "close")
    }

    /// The first value of a field, without whitespace around it. Names are compared without case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers(name).next()
    }

    /// The first value of a field, if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// Every value of a field, in the order received.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| self.is_named(field, name)).map(|field| self.bytes(field.value))
    }

    /// All fields as name and value, in the order received.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (self.text(field.name), self.bytes(field.value)))
    }

    /// The members of a comma-separated field over all its lines (RFC 9110 §5.6.1); empty members are left out. Commas
    /// inside quoted strings separate too, so this is for fields whose members are tokens.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim_ows)
            .filter(|member| !member.is_empty())
    }

    /// Whether a comma-separated field has this member, compared without case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    fn is_named(&self, field: &Field, name: &str) -> bool {
        self.bytes(field.name).eq_ignore_ascii_case(name.as_bytes())
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.head.get(usize::from(span.start)..usize::from(span.end)).unwrap_or_default()
    }

    fn text(&self, span: Span) -> &str {
        str::from_utf8(self.bytes(span)).unwrap_or_default()
    }
}

impl Span {
    /// Where `part` lies in `whole`; `None` if it does not.
    fn of(whole: &[u8], part: &[u8]) -> Option<Span> {
        if part.is_empty() {
            return Some(Span::default());
        }
        let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        let end = start.checked_add(part.len()).filter(|&end| end <= whole.len())?;
        Some(Span { start: u16::try_from(start).ok()?, end: u16::try_from(end).ok()? })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("fields", &self.fields.len())
            .finish_non_exhaustive()
    }
}

fn bad_target(detail: &'static str) -> Refusal {
    Refusal::bad_request("bad_target", detail)
}
