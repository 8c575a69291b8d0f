// go run main.go
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
)

// verified accepts only requests from the sidecar with a valid token; others have no status or another one.
func verified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-JWT-Status") != "verified" {
			answer(w, http.StatusForbidden, map[string]any{"error": "Not verified"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func protected(w http.ResponseWriter, r *http.Request) {
	sub, err := url.PathUnescape(r.Header.Get("X-JWT-Sub")) // "" without the claim; QueryUnescape would turn + into a space
	payload, err2 := base64.RawURLEncoding.DecodeString(r.Header.Get("X-JWT-Claims"))
	if err != nil || err2 != nil {
		answer(w, http.StatusInternalServerError, map[string]any{"error": "Not from the sidecar"})
		return
	}
	answer(w, http.StatusOK, map[string]any{"message": "Access granted", "sub": sub, "user": json.RawMessage(payload)})
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "9292"
	}
	// Loopback: only this pod or host can reach it.
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("/protected", protected)
	log.Fatal(http.Serve(listener, verified(mux)))
}
