//! How a request is told no: a status, a stable code, one sentence.

use core::fmt;
use std::borrow::Cow;

/// An HTTP status code (RFC 9110 §15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u16);

macro_rules! statuses {
    ($($code:literal $name:ident $reason:literal)*) => {
        impl Status {
            $(#[doc = concat!("`", $code, " ", $reason, "`")] pub const $name: Status = Status($code);)*

            /// The reason phrase; empty for a code that has no constant here.
            pub fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    _ => "",
                }
            }
        }
    };
}

statuses! {
    101 SWITCHING_PROTOCOLS "Switching Protocols"
    200 OK "OK"
    201 CREATED "Created"
    202 ACCEPTED "Accepted"
    204 NO_CONTENT "No Content"
    301 MOVED_PERMANENTLY "Moved Permanently"
    302 FOUND "Found"
    303 SEE_OTHER "See Other"
    304 NOT_MODIFIED "Not Modified"
    307 TEMPORARY_REDIRECT "Temporary Redirect"
    308 PERMANENT_REDIRECT "Permanent Redirect"
    400 BAD_REQUEST "Bad Request"
    401 UNAUTHORIZED "Unauthorized"
    403 FORBIDDEN "Forbidden"
    404 NOT_FOUND "Not Found"
    405 METHOD_NOT_ALLOWED "Method Not Allowed"
    406 NOT_ACCEPTABLE "Not Acceptable"
    408 REQUEST_TIMEOUT "Request Timeout"
    409 CONFLICT "Conflict"
    410 GONE "Gone"
    411 LENGTH_REQUIRED "Length Required"
    412 PRECONDITION_FAILED "Precondition Failed"
    413 CONTENT_TOO_LARGE "Content Too Large"
    414 URI_TOO_LONG "URI Too Long"
    415 UNSUPPORTED_MEDIA_TYPE "Unsupported Media Type"
    417 EXPECTATION_FAILED "Expectation Failed"
    421 MISDIRECTED_REQUEST "Misdirected Request"
    422 UNPROCESSABLE_CONTENT "Unprocessable Content"
    426 UPGRADE_REQUIRED "Upgrade Required"
    429 TOO_MANY_REQUESTS "Too Many Requests"
    431 REQUEST_HEADER_FIELDS_TOO_LARGE "Request Header Fields Too Large"
    500 INTERNAL_SERVER_ERROR "Internal Server Error"
    501 NOT_IMPLEMENTED "Not Implemented"
    502 BAD_GATEWAY "Bad Gateway"
    503 SERVICE_UNAVAILABLE "Service Unavailable"
    504 GATEWAY_TIMEOUT "Gateway Timeout"
    505 HTTP_VERSION_NOT_SUPPORTED "HTTP Version Not Supported"
}

impl fmt::Display for Status {
    /// `404 Not Found`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            "" => write!(f, "{}", self.0),
            reason => write!(f, "{} {reason}", self.0),
        }
    }
}

/// Why a request is answered with an error: what [`Response::problem`](super::Response::problem) turns into
/// `application/problem+json` (RFC 9457), and what the log and the metrics name by its `code`.
///
/// Neither `detail` nor the headers repeat bytes of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Refusal {
    /// The status of the answer.
    pub status: Status,
    /// Stable snake_case: the same in the answer, the log and the metrics.
    pub code: &'static str,
    /// One sentence that says what to do.
    pub detail: Cow<'static, str>,
    headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Refusal {
    /// A refusal without headers of its own.
    pub fn new(status: Status, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, code, detail: detail.into(), headers: Vec::new() }
    }

    /// 400 with this code.
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Status::BAD_REQUEST, code, detail)
    }

    /// 405 that names the methods that work here (RFC 9110 §10.2.1), such as `GET, HEAD`.
    pub fn method_not_allowed(allow: &'static str) -> Refusal {
        let detail = format!("This method does not work here; use {allow}.");
        Refusal::new(Status::METHOD_NOT_ALLOWED, "method_not_allowed", detail).with_header("Allow", allow)
    }

    /// Adds a header to the answer, such as `Retry-After` to a 503.
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Refusal {
        self.headers.push((name, value.into()));
        self
    }

    /// The headers that belong to this answer, such as `Allow` to a 405.
    pub fn headers(&self) -> &[(&'static str, Cow<'static, str>)] {
        &self.headers
    }
}

/// A refusal that says no more than its status does.
impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        let (code, detail) = match status {
            Status::UNAUTHORIZED => ("unauthorized", "Say who you are."),
            Status::FORBIDDEN => ("forbidden", "This is not for you."),
            Status::NOT_FOUND => ("not_found", "There is nothing here."),
            Status::SERVICE_UNAVAILABLE => ("unavailable", "Try again later."),
            _ => ("refused", "The application refused it."),
        };
        Refusal::new(status, code, detail)
    }
}

impl fmt::Display for Refusal {
    /// `bad_request_line: …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Refusal {}
