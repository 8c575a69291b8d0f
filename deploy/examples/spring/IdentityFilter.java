// Spring Boot 3, in place of spring-boot-starter-oauth2-resource-server. In application.properties, so that nothing outside this pod
// or host reaches it:
//   server.address=127.0.0.1
//   server.port=9292
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;
import org.springframework.stereotype.Component;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestAttribute;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.filter.OncePerRequestFilter;
import org.springframework.web.util.UriUtils;

@Component
class IdentityFilter extends OncePerRequestFilter {
    private final ObjectMapper json = new ObjectMapper();

    @Override
    protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
            throws ServletException, IOException {
        // Only a request that came through the sidecar with a valid token has this status.
        if (!"verified".equals(request.getHeader("X-JWT-Status"))) {
            response.setStatus(403);
            response.setContentType("application/json");
            response.getWriter().write("{\"error\": \"Not verified\"}");
            return;
        }
        request.setAttribute("user", json.readTree(Base64.getUrlDecoder().decode(request.getHeader("X-JWT-Claims"))));
        // Percent-encoded UTF-8; UriUtils, because URLDecoder would turn + into a space.
        var sub = request.getHeader("X-JWT-Sub"); // null without the claim
        request.setAttribute("sub", sub == null ? "" : UriUtils.decode(sub, StandardCharsets.UTF_8));
        chain.doFilter(request, response);
    }
}

@RestController
class Access {
    @GetMapping("/protected")
    Map<String, Object> show(@RequestAttribute String sub, @RequestAttribute JsonNode user) {
        return Map.of("message", "Access granted", "sub", sub, "user", user);
    }
}
