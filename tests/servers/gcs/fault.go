package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fault: what happens to the next request whose "METHOD path" matches `On`. Set with POST /_fault, a JSON object;
// GET /_fault tells how many have not happened yet and how many requests wait; POST /_release lets those go on.
//
//	answer  refuse with this status (and XML code or JSON reason), without acting
//	drop    close the connection without acting
//	lose    act, then close it
//	cut     act, send so many bytes of the body, then close it
//	hold    wait for /_release before anything else
type fault struct {
	On     string
	Answer int
	Code   string
	Drop   bool
	Lose   bool
	Cut    int
	Hold   bool
}

var (
	faultLock sync.Mutex
	faults    []fault
	waiting   int
	release   = make(chan struct{})
	seen      []string
)

const holdLimit = 30 * time.Second

// take the first fault for this request.
func take(request string) *fault {
	faultLock.Lock()
	defer faultLock.Unlock()
	seen = append(seen, request)
	for index, one := range faults {
		if matched, _ := regexp.MatchString(one.On, request); matched {
			faults = append(faults[:index:index], faults[index+1:]...)
			return &one
		}
	}
	return nil
}

func wait() {
	faultLock.Lock()
	waiting++
	until := release
	faultLock.Unlock()
	select {
	case <-until:
	case <-time.After(holdLimit):
	}
	faultLock.Lock()
	waiting--
	faultLock.Unlock()
}

func control(w http.ResponseWriter, r *http.Request) bool {
	faultLock.Lock()
	defer faultLock.Unlock()
	switch {
	case r.URL.Path == "/_fault" && r.Method == http.MethodPost:
		var one fault
		if err := json.NewDecoder(r.Body).Decode(&one); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return true
		}
		faults = append(faults, one)
	case r.URL.Path == "/_fault":
		json.NewEncoder(w).Encode(map[string]any{"left": len(faults), "waiting": waiting, "seen": seen})
	case r.URL.Path == "/_release":
		close(release)
		release = make(chan struct{})
		faults, seen = nil, nil
	default:
		return false
	}
	return true
}

func hangUp(w http.ResponseWriter, before []byte) {
	connection, buffer, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	buffer.Write(before)
	buffer.Flush()
	connection.Close()
}

// faulty is the handler with faults before and behind it.
func faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if control(w, r) {
			return
		}
		path := r.URL.RequestURI()
		one := take(r.Method + " " + path)
		if one == nil {
			next.ServeHTTP(w, r)
			return
		}
		if one.Hold {
			wait()
		}
		switch {
		case one.Drop:
			hangUp(w, nil)
		case one.Answer != 0 && apiPath.MatchString(r.URL.EscapedPath()):
			fail(w, one.Answer, one.Code, one.Code)
		case one.Answer != 0:
			failXML(w, one.Answer, one.Code)
		case one.Lose:
			next.ServeHTTP(httptest.NewRecorder(), r)
			hangUp(w, nil)
		case one.Cut != 0:
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			hangUp(w, begun(answer, one.Cut))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// begun: the head of an answer that promises its whole body, and `size` bytes of that.
func begun(answer *httptest.ResponseRecorder, size int) []byte {
	var out bytes.Buffer
	out.WriteString("HTTP/1.1 " + strconv.Itoa(answer.Code) + " " + http.StatusText(answer.Code) + "\r\n")
	for name, values := range answer.Header() {
		if !strings.EqualFold(name, "Content-Length") {
			out.WriteString(name + ": " + values[0] + "\r\n")
		}
	}
	body := answer.Body.Bytes()
	out.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n")
	out.Write(body[:min(size, len(body))])
	return out.Bytes()
}
