// What Jetty and Spring MVC on it take the path of a request for: the answer is a JSON list.
import java.io.IOException;
import java.util.List;
import java.util.stream.Collectors;
import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.springframework.web.util.UrlPathHelper;

public class Spring extends HttpServlet {
    static String json(List<String> texts) {
        return texts.stream()
                .map(text -> "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"")
                .collect(Collectors.joining(",", "[", "]"));
    }

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        String info = request.getPathInfo() == null ? "" : request.getPathInfo();
        request.setCharacterEncoding("UTF-8"); // as Spring Boot does
        UrlPathHelper helper = new UrlPathHelper();
        UrlPathHelper full = new UrlPathHelper();
        full.setAlwaysUseFullPath(true);
        UrlPathHelper undecoded = new UrlPathHelper();
        undecoded.setUrlDecode(false);
        response.setContentType("application/json;charset=utf-8");
        response.getWriter().write(json(List.of(request.getServletPath() + info, request.getRequestURI(),
                helper.getLookupPathForRequest(request), full.getLookupPathForRequest(request),
                undecoded.getLookupPathForRequest(request))));
    }

    public static void main(String[] arguments) throws Exception {
        Server server = new Server();
        ServerConnector connector = new ServerConnector(server);
        connector.setHost("127.0.0.1");
        server.addConnector(connector);
        ServletContextHandler handler = new ServletContextHandler(null, "/");
        handler.addServlet(Spring.class, "/*");
        server.setHandler(handler);
        server.start();
        System.out.println("listening on http://127.0.0.1:" + connector.getLocalPort());
        server.join();
    }
}
