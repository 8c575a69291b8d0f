// What Tomcat takes the path of a request for: the answer is a JSON list.
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.file.Files;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.catalina.Context;
import org.apache.catalina.startup.Tomcat;

class Serve extends HttpServlet {
    static String json(List<String> texts) {
        return texts.stream()
                .map(text -> "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"")
                .collect(Collectors.joining(",", "[", "]"));
    }

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        String info = request.getPathInfo() == null ? "" : request.getPathInfo();
        response.setContentType("application/json;charset=utf-8");
        response.getWriter().write(json(List.of(request.getServletPath() + info, request.getRequestURI())));
    }

    public static void main(String[] arguments) throws Exception {
        java.util.logging.LogManager.getLogManager().reset();
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(Files.createTempDirectory("tomcat").toString());
        tomcat.setHostname("127.0.0.1");
        tomcat.setPort(0);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        if (arguments.length > 0) {
            tomcat.getConnector().setProperty("encodedSolidusHandling", arguments[0]);
        }
        Context context = tomcat.addContext("", null);
        Tomcat.addServlet(context, "serve", new Serve());
        context.addServletMappingDecoded("/*", "serve");
        tomcat.start();
        System.out.println("listening on http://127.0.0.1:" + tomcat.getConnector().getLocalPort());
        tomcat.getServer().await();
    }
}
