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

// session: a resumable upload as far as the library does not keep it. The library takes each part as it comes, and
// takes the question "bytes */*" for the end of the upload; real sessions know how far they are
// (cloud.google.com/storage/docs/resumable-uploads). For each part it also digests all that came before, a time that
// grows with the square of an upload's size: so it gets the first part, which tells whether it knows the session, and
// the last one with all between them.
type session struct {
	size  int64
	parts []io.Reader // that the library has not got yet
	ended bool
}

var (
	sessions  = map[string]*session{} // under `lock`
	partRange = regexp.MustCompile(`^bytes (?:\*|(\d+)-(\d+))/(?:\*|(\d+))$`)
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
		state.ended, state.parts = true, nil
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
	first := state.size == 0
	state.size = max(state.size, end+1)
	if first {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(kept)), int64(len(kept))
		return false
	}
	state.parts = append(state.parts, bytes.NewReader(kept))
	if total, err := strconv.ParseInt(match[3], 10, 64); err != nil || state.size < total {
		w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", state.size-1))
		w.WriteHeader(http.StatusPermanentRedirect)
		return true
	}
	r.Body, r.ContentLength = io.NopCloser(io.MultiReader(state.parts...)), -1
	state.parts = nil
	return false
}
