package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// session: a resumable upload as far as the library does not keep it. It takes each part as it comes, and takes
// the question "bytes */*" for the end of the upload; real sessions know how far they are
// (cloud.google.com/storage/docs/resumable-uploads).
type session struct {
	size  int64
	ended bool
}

var (
	sessions  = map[string]*session{} // under `lock`
	partRange = regexp.MustCompile(`^bytes (?:\*|(\d+)-(\d+))/(?:\*|\d+)$`)
)

// serveSession answers what concerns an upload session, or prepares the request for the library and says false.
func serveSession(w http.ResponseWriter, r *http.Request, body []byte) bool {
	id := r.URL.Query().Get("upload_id")
	if id == "" || !strings.HasPrefix(r.URL.Path, "/upload/") {
		return false
	}
	state := sessions[id]
	if state == nil {
		state = &session{}
		sessions[id] = state
	}
	if state.ended {
		fail(w, 499, "cancelled", "Upload was cancelled")
		return true
	}
	if r.Method == http.MethodDelete {
		state.ended = true
		w.WriteHeader(499)
		return true
	}
	match := partRange.FindStringSubmatch(r.Header.Get("Content-Range"))
	if match == nil {
		return false
	}
	if match[1] == "" {
		if len(body) > 0 || !strings.HasSuffix(match[0], "/*") {
			return false
		}
		if state.size > 0 {
			w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", state.size-1))
		}
		w.WriteHeader(http.StatusPermanentRedirect)
		return true
	}
	start, _ := strconv.ParseInt(match[1], 10, 64)
	end, _ := strconv.ParseInt(match[2], 10, 64)
	if start > state.size || end-start+1 != int64(len(body)) {
		fail(w, http.StatusServiceUnavailable, "backendError", "the part does not follow what is there")
		return true
	}
	kept := body[min(state.size-start, int64(len(body))):] // what was there already is not taken again
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(kept)), int64(len(kept))
	state.size = max(state.size, end+1)
	return false
}
