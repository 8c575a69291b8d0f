// java Backend.java
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.concurrent.Executors;

class Backend {
    // Percent-encoded UTF-8, null without the claim. (URLDecoder would turn + into a space.)
    static String text(String header) {
        if (header == null) {
            return null;
        }
        var bytes = new ByteArrayOutputStream();
        for (int at = 0; at < header.length(); at++) {
            if (header.charAt(at) == '%') {
                bytes.write(Integer.parseInt(header.substring(at + 1, at + 3), 16));
                at += 2;
            } else {
                bytes.write(header.charAt(at));
            }
        }
        return bytes.toString(StandardCharsets.UTF_8);
    }

    // JSON, as it was signed.
    static String claims(String header) {
        return new String(Base64.getUrlDecoder().decode(header), StandardCharsets.UTF_8);
    }

    static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        var json = new StringBuilder("\"");
        text.chars().forEach(c -> json.append(c < 0x20 || c == '"' || c == '\\' ? String.format("\\u%04x", c) : (char) c));
        return json.append('"').toString();
    }

    static void handle(HttpExchange exchange) throws IOException {
        var headers = exchange.getRequestHeaders();
        // Only a request that came through the sidecar with a valid token has this status.
        if (!"verified".equals(headers.getFirst("X-JWT-Status"))) {
            answer(exchange, 403, "{\"error\": \"Not verified\"}");
        } else if (!exchange.getRequestURI().getPath().equals("/protected")) {
            answer(exchange, 404, "{\"error\": \"Not found\"}");
        } else {
            var sub = quoted(text(headers.getFirst("X-JWT-Sub")));
            var user = claims(headers.getFirst("X-JWT-Claims"));
            answer(exchange, 200, "{\"message\": \"Access granted\", \"sub\": " + sub + ", \"user\": " + user + "}");
        }
    }

    static void answer(HttpExchange exchange, int status, String json) throws IOException {
        byte[] body = json.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        try (var out = exchange.getResponseBody()) {
            out.write(body);
        }
    }

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "9292"));
        // Loopback: only this pod or host can reach it.
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), port), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", Backend::handle);
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort());
    }
}
