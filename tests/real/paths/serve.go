// What Go's net/http takes the path of a request for: the answer is a JSON list.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"path"
)

// routed answers only where ServeMux serves a path as it is; else it redirects the client to another one.
func routed(mux *http.ServeMux, r *http.Request) []string {
	if _, pattern := mux.Handler(r); pattern == "/" {
		if clean := path.Clean(r.URL.Path); clean == r.URL.Path || clean+"/" == r.URL.Path {
			return []string{r.URL.Path}
		}
	}
	return nil
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {})
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found := append(routed(mux, r), r.URL.Path, path.Clean(r.URL.Path))
		json.NewEncoder(w).Encode(found)
	})))
}
